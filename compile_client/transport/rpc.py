"""The wire in plain values: every call of the protocol, with a deadline, and with errors of this package only.

This is the one module of the client that imports grpc and protobuf; `compile_client.transport.connection` imports it
when a daemon has answered the probe. Nothing here is trusted or verified: see there.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import grpc

from compile_client.errors import (
    ClientError,
    DrainingError,
    FullError,
    HandshakeNeededError,
    InternalError,
    InvalidError,
    LateError,
    MalformedAnswerError,
    MissingError,
    ReadOnlyError,
    RefusedError,
    UnauthenticatedError,
    UnavailableError,
)
from compile_client.transport.endpoint import TlsKeys
from compile_client.transport.messages import CompileEvent, CompileRequest, Queued, Refusal, Running
from compile_client.transport.records import ExplainedGraph, Outcome, RunPart
from compile_client.transport.stream_timeout import stream_with_timeout
from compile_wire import tracing
from compile_wire.digest import Digest
from compile_wire.limits import (
    CHUNK_BYTES,
    MAX_KEY_TEXT,
    MAX_MESSAGE_BYTES,
    MAX_MESSAGE_TEXT,
    MAX_NAME_TEXT,
    MAX_REASON_TEXT,
    MAX_REASONS,
)
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc
from compile_wire.v1 import kernels_pb2 as kernels_pb
from compile_wire.v1 import kernels_pb2_grpc
from compile_wire.v1 import runs_pb2 as runs_pb
from compile_wire.v1 import runs_pb2_grpc as runs_pb_grpc

_MAX_DETAILS = 300
_MAX_PHASE = 40
_MAX_HOST = 64
_MAX_FIELDS = 64

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel after a failure shares no broken transport with the old one
    ("grpc.enable_http_proxy", 0),  # a cluster's http_proxy has no business with a daemon of this machine
    ("grpc.enable_retries", 0),  # one attempt; what follows a failure is decided in compile_client.transport.reconnect
)

_ERRORS: Mapping[grpc.StatusCode, type[ClientError]] = {
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.CANCELLED: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: LateError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.FAILED_PRECONDITION: HandshakeNeededError,
    grpc.StatusCode.NOT_FOUND: MissingError,
    grpc.StatusCode.PERMISSION_DENIED: ReadOnlyError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidError,
    grpc.StatusCode.UNIMPLEMENTED: RefusedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: FullError,
}


@dataclass(frozen=True, slots=True)
class Welcome:
    """The daemon's answer to a handshake."""

    protocol_version: int
    server_version: str
    environment_id: str
    refusal: str
    facts: bytes
    facts_signature: bytes
    may_publish: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """An artifact as it came, unverified."""

    manifest: bytes
    signature: bytes
    blobs: tuple[tuple[str, bytes], ...]
    host: str
    """The other node that compiled it; empty from a daemon that is older than shared tiers."""


@contextmanager
def _translated_errors() -> Iterator[None]:
    """Raise what grpc raises as one of this package's errors."""
    try:
        yield
    except grpc.RpcError as error:
        raise _translated(error) from error
    except ValueError as error:  # how grpc says that another thread has closed the channel
        raise UnavailableError(f"the connection was closed ({error})") from error


class Rpc:
    """One gRPC channel. Safe to call from any thread; every method raises only `ClientError`."""

    def __init__(self, target: str, token: str, tls: TlsKeys | None = None) -> None:
        """`token` is empty where a certificate takes its place; without `tls`, `target` must be on this machine."""
        if tls is None:
            self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.certificate)
            self._channel = grpc.secure_channel(target, credentials, options=_OPTIONS)
        self._stub = pb_grpc.CompileServiceStub(self._channel)
        self._kernels = kernels_pb2_grpc.KernelServiceStub(self._channel)
        self._runs = runs_pb_grpc.RunServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def close(self) -> None:
        """End the channel; calls under way end with `UnavailableError`."""
        self._channel.close()

    def handshake(
        self,
        environment: Mapping[str, str],
        *,
        protocol: int,
        version: str,
        program: str,
        interpreter: str,
        timeout_s: float,
    ) -> Welcome:
        """Introduce this process."""
        request = pb.HandshakeRequest(
            protocol_version=protocol,
            client_version=version,
            environment=environment,
            program=program,
            interpreter=interpreter,
        )
        with _translated_errors():
            answer = self._stub.Handshake(request, timeout=timeout_s, metadata=self._sent())
        return Welcome(
            protocol_version=answer.protocol_version,
            server_version=answer.server_version,
            environment_id=answer.environment_id,
            refusal=_plain(answer.refusal, _MAX_DETAILS),
            facts=answer.facts,
            facts_signature=answer.facts_signature,
            may_publish=answer.may_publish,
        )

    def lookup(self, environment_id: str, key: str, have: Collection[Digest], *, timeout_s: float) -> list[Entry]:
        """Ask for what is stored under a key."""
        request = pb.LookupArtifactRequest(environment_id=environment_id, key=key, have=have)
        with _translated_errors():
            answer = self._stub.LookupArtifact(request, timeout=timeout_s, metadata=self._sent())
        return [_entry(entry) for entry in answer.entries]

    def compile(
        self,
        environment_id: str,
        request: CompileRequest,
        content: bytes | Digest,
        *,
        interpreter: str,
        program: str,
        timeout_s: float,
        silence_s: float,
    ) -> Generator[CompileEvent | Entry | Refusal | None, None, None]:
        """Ask for a compile; return a stream of its events, with None about once a second between them.

        `content` is the request's payload or the name of its blob. The stream must be iterated or closed. It raises
        `OverdueError` where the deadline passes while the daemon reports progress, `LateError` where it has been silent
        for `silence_s`.
        """
        # The stream tells apart whether the graph or the daemon is late; gRPC's own deadline would come in between.
        limits: dict[str, Any] = {"timeout": timeout_s + silence_s, "metadata": self._sent()}
        named = {
            "environment_id": environment_id, "key": request.key, "interpreter": interpreter, "program": program,
        }  # fmt: skip
        with _translated_errors():
            if request.kind == "kernel":
                kernel = kernels_pb.CompileKernelRequest(**named, kernel=_graph(content))
                call = self._kernels.CompileKernel(kernel, **limits)
            else:
                graph = pb.CompileGraphRequest(
                    **named, graph=_graph(content), have=request.have, ahead=request.background
                )
                call = self._stub.CompileGraph(graph, **limits)
        return self._events(call, timeout_s, silence_s)

    def _events(
        self, call: Any, timeout_s: float, silence_s: float
    ) -> Generator[CompileEvent | Entry | Refusal | None, None, None]:
        try:
            with _translated_errors():
                for answer in stream_with_timeout(call, timeout_s=timeout_s, silence_s=silence_s):
                    yield None if answer is None else _event(answer)
        finally:
            call.cancel()

    def read_blob(self, digest: Digest, *, timeout_s: float) -> Generator[bytes, None, None]:
        """Yield a blob's pieces as they come; the caller bounds their sum."""
        request = pb.ReadBlobRequest(sha256=digest)
        with _translated_errors():
            call = self._stub.ReadBlob(request, timeout=timeout_s, metadata=self._sent())
        try:
            with _translated_errors():
                for answer in call:
                    yield answer.data
        finally:
            call.cancel()

    def write_blob(self, digest: Digest, data: bytes, *, timeout_s: float) -> None:
        """Store a blob."""

        def pieces() -> Iterator[pb.WriteBlobRequest]:
            view = memoryview(data)
            yield pb.WriteBlobRequest(sha256=digest, size=len(data), data=bytes(view[:CHUNK_BYTES]))
            for start in range(CHUNK_BYTES, len(data), CHUNK_BYTES):
                yield pb.WriteBlobRequest(data=bytes(view[start : start + CHUNK_BYTES]))

        with _translated_errors():
            self._stub.WriteBlob(pieces(), timeout=timeout_s, metadata=self._sent())

    def publish(
        self,
        environment_id: str,
        key: str,
        manifest: bytes,
        blobs: Mapping[Digest, bytes],
        graph: bytes | Digest | None,
        *,
        program: str,
        disputed: Sequence[Digest],
        timeout_s: float,
    ) -> None:
        """Hand in an artifact; blobs that are not given here must have been written."""
        request = pb.PublishArtifactRequest(
            environment_id=environment_id,
            key=key,
            manifest=manifest,
            blobs=[pb.Blob(sha256=digest, data=data) for digest, data in blobs.items()],
            graph=_graph(graph) if graph is not None else None,
            program=program,
            disputed=disputed,
        )
        with _translated_errors():
            self._stub.PublishArtifact(request, timeout=timeout_s, metadata=self._sent())

    def _sent(self) -> tuple[tuple[str, str], ...]:
        trace = tracing.carried()
        return (*self._metadata, (tracing.TRACEPARENT, trace)) if trace else self._metadata

    def report_run(self, part: RunPart, *, program: str, environment_id: str, timeout_s: float) -> None:
        """Hand in a piece of a run's record."""
        now = time.monotonic()
        request = runs_pb.ReportRunRequest(
            run=part.run,
            program=program,
            pid=os.getpid(),
            environment_id=environment_id,
            age_s=part.age_s,
            graphs=[
                runs_pb.GraphReport(
                    number=graph.number,
                    key=graph.key,
                    outcome=_OUTCOMES[graph.outcome],
                    reason=graph.reason[:MAX_REASON_TEXT],
                    message=_plain(graph.message, MAX_MESSAGE_TEXT),
                    tried=graph.tried,
                    waited_s=graph.waited_s,
                    saved_s=graph.saved_s,
                    spent_s=graph.spent_s,
                    graph_sha256=graph.graph or "",
                    age_s=max(0.0, now - graph.begun),
                )
                for graph in part.graphs
            ],
            fallbacks=dict(list(part.fallbacks.items())[:MAX_REASONS]),
            unreported=part.unreported,
            ended=part.ended,
        )
        with _translated_errors():
            self._runs.ReportRun(request, timeout=timeout_s, metadata=self._metadata)

    def explain_run(self, run: str, *, timeout_s: float) -> list[ExplainedGraph]:
        """Ask why the graphs of a run were not there."""
        request = runs_pb.ExplainRunRequest(run=run)
        with _translated_errors():
            answer = self._runs.ExplainRun(request, timeout=timeout_s, metadata=self._metadata)
        return [_explained(graph) for graph in answer.graphs[:_MAX_FIELDS]]


_OUTCOMES: Mapping[Outcome, runs_pb.GraphOutcome.ValueType] = {
    "hit_local": runs_pb.GRAPH_OUTCOME_HIT_LOCAL,
    "hit": runs_pb.GRAPH_OUTCOME_HIT,
    "compiled_by_daemon": runs_pb.GRAPH_OUTCOME_COMPILED_BY_DAEMON,
    "compiled_here": runs_pb.GRAPH_OUTCOME_COMPILED_HERE,
}


def _explained(graph: runs_pb.GraphExplanation) -> ExplainedGraph:
    by_daemon = graph.outcome == runs_pb.GRAPH_OUTCOME_COMPILED_BY_DAEMON
    return ExplainedGraph(
        number=graph.number,
        kind=_plain(graph.kind, MAX_REASON_TEXT) or "graph",
        name=_plain(graph.name, MAX_NAME_TEXT),
        key=_plain(graph.key, MAX_KEY_TEXT),
        outcome="compiled_by_daemon" if by_daemon else "compiled_here",
        reason=_plain(graph.reason, MAX_REASON_TEXT),
        message=_plain(graph.message, MAX_MESSAGE_TEXT),
        sentence=_plain(graph.sentence, _MAX_DETAILS),
        nearest=_plain(graph.nearest.program, _MAX_DETAILS) if graph.HasField("nearest") else "",
        differences=tuple(_plain(told.text, _MAX_DETAILS) for told in graph.differences[:_MAX_FIELDS]),
        more=graph.more,
    )


def _event(answer: pb.CompileGraphResponse) -> CompileEvent | Entry | Refusal:
    match answer.WhichOneof("event"):
        case "queued":
            return Queued(answer.queued.position)
        case "running":
            running = answer.running
            expected_s = running.expected_s if math.isfinite(running.expected_s) else 0.0
            return Running(running.elapsed_s, _plain(running.phase, _MAX_PHASE), expected_s)
        case "artifact":
            return _entry(answer.artifact)
        case "refused":
            refused = answer.refused
            if refused.reason == pb.Refused.REASON_DRAINING:
                raise DrainingError("the daemon stops")
            fields = tuple(_plain(field, _MAX_DETAILS) for field in refused.fields[:_MAX_FIELDS])
            return Refusal(_reason_name(refused.reason), _plain(refused.message, _MAX_DETAILS), fields)
        case _:
            raise MalformedAnswerError("an event of the compile is of no kind known here")


def _reason_name(reason: pb.Refused.Reason.ValueType) -> str:
    try:
        return pb.Refused.Reason.Name(reason).removeprefix("REASON_").lower()
    except ValueError:  # a newer daemon's reason
        return "unspecified"


def _entry(entry: pb.ArtifactEntry) -> Entry:
    blobs = tuple((blob.sha256, blob.data) for blob in entry.blobs)
    return Entry(entry.manifest, entry.signature, blobs, _plain(entry.host, _MAX_HOST))


def _graph(graph: bytes | Digest) -> pb.Graph:
    return pb.Graph(data=graph) if isinstance(graph, bytes) else pb.Graph(sha256=graph)


def _translated(error: grpc.RpcError) -> ClientError:
    status = cast("grpc.Call", error)  # what grpc raises is both; its types say only the one
    code = status.code()
    details = _plain(status.details() or "", _MAX_DETAILS)
    kind = _ERRORS.get(code, InternalError)
    if kind is LateError:  # gRPC's own words are about streams
        return kind("the daemon did not answer in time")
    what = "the daemon went away" if kind is UnavailableError else f"the daemon answered {code.name}"
    return kind(what + (f": {details}" if details else ""))


def _plain(text: str, max_length: int) -> str:
    """Return text of the daemon's as it may appear in a log: one line, no control characters, not too long."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())[:max_length]
