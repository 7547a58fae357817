"""The operator's calls about what is kept, in plain values. Every call has a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compile_wire.digest import Digest
from compile_wire.kernel.environment import ArtifactKind, kind_of
from compile_wire.limits import CHUNK_BYTES
from compile_wire.v1 import compiler_daemon_pb2 as base_pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as base_pb_grpc
from compile_wire.v1 import inventory_pb2 as pb
from compile_wire.v1 import inventory_pb2_grpc as pb_grpc
from compiler_daemon.admin.connection import OperatorClient
from compiler_daemon.insight.inventory_values import Collected, EnvironmentView
from compiler_daemon.store import ArtifactRow, GcReport, StoredGraph

_LONG_CALL_S = 600.0
"""For what goes through the whole store, or moves as much as a blob may have."""

_DIGESTS_A_CALL = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """One artifact of a name, with what was stored of it."""

    row: ArtifactRow
    manifest: bytes
    signature: bytes


class InventoryClient:
    """Asks the daemon of a directory what it keeps."""

    def __init__(self, operator: OperatorClient, *, call_s: float = _LONG_CALL_S) -> None:
        self._operator = operator
        self._call_s = call_s

    def artifacts(
        self, *, environment: str = "", program: str = "", origin: str = "", pinned_only: bool = False
    ) -> list[ArtifactRow]:
        """Return artifacts, newest first."""
        request = pb.ListArtifactsRequest(
            environment_id=environment, program=program, origin=origin, pinned_only=pinned_only
        )
        return [artifact_row(line) for page in self._stream("ListArtifacts", request) for line in page.artifacts]

    def requests(self, *, environment: str = "", program: str = "") -> list[StoredGraph]:
        """Return the graphs that were asked for, newest first."""
        request = pb.ListRequestsRequest(environment_id=environment, program=program)
        return [_request_row(line) for page in self._stream("ListRequests", request) for line in page.requests]

    def environments(self) -> dict[Digest, EnvironmentView]:
        """Return every environment by its id, oldest first."""
        return {
            Digest(one.environment_id): EnvironmentView(
                environment=Digest(one.environment_id), fields=dict(one.fields), served=one.served
            )
            for one in self._stream("ListEnvironments", pb.ListEnvironmentsRequest())
        }

    def kinds(self, rows: Iterable[ArtifactRow]) -> dict[Digest, ArtifactKind]:
        """Return of each artifact what it is: a graph, a kernel, or what an autotuner measured."""
        fields = {environment: view.fields for environment, view in self.environments().items()}
        return {row.digest: kind_of(row.key, fields.get(row.environment, {})) for row in rows}

    def describe(self, name: str) -> tuple[list[Description], list[StoredGraph]]:
        """Return everything of a name; raise `DaemonError` where it means nothing, or several things."""
        artifacts, requests = [], []
        for one in self._stream("Describe", pb.DescribeRequest(name=name)):
            if one.HasField("artifact"):
                part = one.artifact
                artifacts.append(
                    Description(row=artifact_row(part.line), manifest=part.manifest, signature=part.signature)
                )
            else:
                requests.append(_request_row(one.request))
        return artifacts, requests

    def graph(self, digest: Digest) -> Iterator[bytes]:
        """Yield a graph's bytes in chunks."""
        for part in self._stream("ReadGraph", pb.ReadGraphRequest(sha256=digest)):
            yield part.data

    def blob(self, digest: Digest) -> Iterator[bytes]:
        """Yield a blob's bytes in chunks."""
        with self._operator.calls() as (channel, metadata):
            stub = base_pb_grpc.CompileServiceStub(channel)
            parts = stub.ReadBlob(base_pb.ReadBlobRequest(sha256=digest), timeout=self._call_s, metadata=metadata)
            for part in parts:
                yield part.data

    def remove(self, digests: Sequence[Digest]) -> int:
        """Remove artifacts; return how many there were."""
        return sum(
            self._unary("RemoveArtifacts", pb.RemoveArtifactsRequest(digests=part)).removed for part in _parts(digests)
        )

    def set_pinned(self, digests: Sequence[Digest], pinned: bool) -> int:
        """Pin or unpin artifacts; return how many of them are stored."""
        return sum(
            self._unary("SetPinned", pb.SetPinnedRequest(digests=part, pinned=pinned)).changed
            for part in _parts(digests)
        )

    def collect(self, *, dry_run: bool, max_bytes: int | None, unused_s: float | None) -> Collected:
        """Collect, or say what would go; the artifacts are the first 500 of them."""
        request = pb.CollectRequest(dry_run=dry_run)
        if max_bytes is not None:
            request.max_bytes = max_bytes
        if unused_s is not None:
            request.unused_s = unused_s
        done = self._unary("Collect", request)
        rows = [artifact_row(line) for line in done.lines]
        report = GcReport(
            artifacts=done.artifacts,
            expired=done.expired,
            blobs=done.blobs,
            orphans=done.orphans,
            bytes=done.bytes,
            dry_run=dry_run,
            gone=tuple(row.digest for row in rows),
        )
        return Collected(report=report, artifacts=rows)

    def missing(self, digests: Sequence[Digest]) -> set[Digest]:
        """Return the blobs that are not stored."""
        return {
            Digest(digest)
            for part in _parts(digests)
            for digest in self._unary("FindMissing", pb.FindMissingRequest(digests=part)).digests
        }

    def import_blob(self, digest: Digest, size: int, chunks: Iterable[bytes]) -> bool:
        """Bring a blob; return whether it was new."""

        def messages() -> Iterator[pb.ImportBlobRequest]:
            yield pb.ImportBlobRequest(sha256=digest, size=size)
            for chunk in chunks:
                for begin in range(0, len(chunk), CHUNK_BYTES):
                    yield pb.ImportBlobRequest(data=chunk[begin : begin + CHUNK_BYTES])

        return bool(self._unary("ImportBlob", messages()).stored)

    def import_artifact(self, fields: Mapping[str, str], manifest: bytes, *, graph: str, program: str) -> bool:
        """Bring an artifact whose blobs are there; return whether it was new."""
        request = pb.ImportArtifactRequest(environment=fields, manifest=manifest, graph=graph, program=program)
        return bool(self._unary("ImportArtifact", request).stored)

    def _unary(self, method: str, request: Any) -> Any:
        with self._operator.calls() as (channel, metadata):
            call: Callable[..., Any] = getattr(pb_grpc.InventoryServiceStub(channel), method)
            return call(request, timeout=self._call_s, metadata=metadata)

    def _stream(self, method: str, request: Any) -> Iterator[Any]:
        with self._operator.calls() as (channel, metadata):
            call: Callable[..., Any] = getattr(pb_grpc.InventoryServiceStub(channel), method)
            yield from call(request, timeout=self._call_s, metadata=metadata)


def artifact_row(line: pb.ArtifactLine) -> ArtifactRow:
    """Return a line of the list as a value."""
    return ArtifactRow(
        digest=Digest(line.digest),
        environment=Digest(line.environment_id),
        key=line.key,
        graph=line.graph,
        bytes=line.bytes,
        compile_s=line.compile_s,
        origin=line.origin,
        program=line.program,
        created=line.created,
        used=line.used,
        hits=line.hits,
        pinned=line.pinned,
    )


def _request_row(line: pb.RequestLine) -> StoredGraph:
    return StoredGraph(
        environment=Digest(line.environment_id),
        key=line.key,
        graph=Digest(line.graph),
        program=line.program,
        bytes=line.bytes,
        created=line.created,
    )


def _parts(digests: Sequence[Digest]) -> Iterator[Sequence[Digest]]:
    for begin in range(0, len(digests), _DIGESTS_A_CALL):
        yield digests[begin : begin + _DIGESTS_A_CALL]
