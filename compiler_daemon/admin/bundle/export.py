"""`export`: what a daemon keeps, into a file, in one pass and with one item in memory at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compile_wire.digest import Digest
from compile_wire.errors import WireError
from compile_wire.manifest import decode_manifest
from compile_wire.signature import verify_artifact
from compiler_daemon import __version__
from compiler_daemon.admin.bundle import BundleWriter, Packed, Request
from compiler_daemon.admin.inventory.calls import Description, InventoryClient
from compiler_daemon.errors import BundleError, DaemonError
from compiler_daemon.store import StoredGraph

Progress = Callable[[int, int], None]
"""Told how many of how many entries are written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """Counts what was written into a bundle."""

    artifacts: int
    graphs: int
    environments: int
    bytes: int
    left_out: tuple[str, ...]
    """A sentence for each thing that was asked for and is not in the file."""


class Exporter:
    """Writes one bundle from the daemon's store."""

    def __init__(self, client: InventoryClient, progress: Progress) -> None:
        self._client = client
        self._progress = progress
        self._left_out: list[str] = []
        self._environments: set[Digest] = set()

    def graphs(self, path: Path, *, program: str, names: Sequence[str]) -> Exported:
        """Write the graphs that were asked for; no secret is needed, for graphs are data."""
        requests = self._requests(program, names)
        if not requests:
            raise _nothing("graph", named=bool(program or names))
        with BundleWriter(path, kind="graphs", made_by=__version__, secret=None) as writer:
            graphs = self._write_requests(writer, requests, step=True)
            size = writer.finish()
        return self._exported(0, graphs, size)

    def artifacts(self, path: Path, *, program: str, names: Sequence[str], secret: bytes) -> Exported:
        """Write artifacts with their blobs and graphs, signed; what is damaged or goes meanwhile is left out."""
        digests: OrderedDict[Digest, None] = OrderedDict()
        for name in names:
            digests.update((one.row.digest, None) for one in self._client.describe(name)[0])
        if not names:
            digests.update((row.digest, None) for row in self._client.artifacts(program=program))
        if not digests:
            raise _nothing("artifact", named=bool(program or names))
        requests = {(one.environment, one.key): one for one in self._requests(program, names)}
        written = 0
        wanted: list[StoredGraph] = []
        with BundleWriter(path, kind="artifacts", made_by=__version__, secret=secret) as writer:
            for number, digest in enumerate(digests, 1):
                try:
                    described, _ = self._client.describe(digest)
                    for one in described:
                        self._write_artifact(writer, one, secret)
                        written += 1
                        if (request := requests.pop((one.row.environment, one.row.key), None)) is not None:
                            wanted.append(request)
                except (DaemonError, WireError) as error:
                    self._left_out.append(f"artifact {digest[:12]}: {error}")
                self._progress(number, len(digests))
            if not written:
                raise BundleError(f"nothing could be exported: {self._left_out[0]}")
            graphs = self._write_requests(writer, wanted, step=False)
            size = writer.finish()
        return self._exported(written, graphs, size)

    def _write_artifact(self, writer: BundleWriter, one: Description, secret: bytes) -> None:
        row, manifest = one.row, one.manifest
        # A disk that somebody else can write to must not have us vouch for what lies on it.
        verify_artifact(secret, one.signature, key=row.key, environment=row.environment, manifest=manifest)
        self._write_environment(writer, row.environment)
        for blob in decode_manifest(manifest).blobs:
            if blob.sha256 not in writer:
                writer.add_item(blob.sha256, self._client.blob(blob.sha256))
        writer.add_item(row.digest, [manifest])
        writer.add_artifact(Packed(manifest=row.digest, environment=row.environment, program=row.program))

    def _write_requests(self, writer: BundleWriter, requests: Sequence[StoredGraph], *, step: bool) -> int:
        graphs = 0
        for number, one in enumerate(requests, 1):
            try:
                self._write_environment(writer, one.environment)
                if one.graph not in writer:
                    writer.add_item(one.graph, self._client.graph(one.graph))
            except DaemonError as error:
                self._left_out.append(f"graph {one.graph[:12]}: {error}")
                continue
            writer.add_request(Request(environment=one.environment, key=one.key, graph=one.graph, program=one.program))
            graphs += 1
            if step:
                self._progress(number, len(requests))
        return graphs

    def _write_environment(self, writer: BundleWriter, environment: Digest) -> None:
        if environment not in self._environments:
            known = self._client.environments()
            if environment not in known:
                raise BundleError(f"its environment {environment[:12]} is forgotten; run its trainer once more")
            writer.add_environment(known[environment].fields)
            self._environments.add(environment)

    def _requests(self, program: str, names: Iterable[str]) -> list[StoredGraph]:
        if not names:
            return self._client.requests(program=program)
        found = {(one.environment, one.key): one for name in names for one in self._client.describe(name)[1]}
        return list(found.values())

    def _exported(self, artifacts: int, graphs: int, size: int) -> Exported:
        return Exported(
            artifacts=artifacts,
            graphs=graphs,
            environments=len(self._environments),
            bytes=size,
            left_out=tuple(self._left_out),
        )


def _nothing(what: str, *, named: bool) -> BundleError:
    if named:
        return BundleError(f"no {what} is kept of what you named: `compiler-daemon ls` lists what there is")
    return BundleError(f"no {what} is kept yet: a trainer's run, or `compiler-daemon warm`, brings some")
