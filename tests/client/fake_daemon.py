"""An honest daemon on a real Unix socket, with switches that make it dishonest, slow or silent.

It speaks the protocol through the generated stubs and compiles nothing: `CompileGraph` answers with an artifact that is
made of the graph's own bytes.
"""

# ruff: noqa: N802 - the methods have the names of the protocol

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import grpc

from compile_wire.digest import Digest, digest_of
from compile_wire.environment import environment_id
from compile_wire.facts import Facts, encode_facts
from compile_wire.limits import CHUNK_BYTES, MAX_INLINE_BYTES, MAX_MESSAGE_BYTES, PROTOCOL_VERSION
from compile_wire.manifest import BlobRef, Manifest, decode_manifest, encode_manifest, manifest_digest
from compile_wire.signature import SECRET_BYTES, sign_artifact, sign_facts
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc
from compile_wire.v1 import runs_pb2 as runs_pb
from compile_wire.v1 import runs_pb2_grpc as runs_pb_grpc


@dataclass
class Faults:
    """What is wrong with the daemon. By default nothing is. A test may change it while the daemon serves."""

    hang: set[str] = field(default_factory=set)
    """Names of calls that are never answered."""
    abort: dict[str, grpc.StatusCode] = field(default_factory=dict)
    """Names of calls that end with this status."""
    cut: set[str] = field(default_factory=set)
    """Names of calls during which the daemon goes away."""
    refusal: str = ""
    protocol: int = PROTOCOL_VERSION
    wrong_environment: bool = False
    wrong_signature: bool = False
    wrong_key: bool = False
    """Whether it answers with an artifact that is signed correctly, but for another key."""
    wrong_facts_signature: bool = False
    damaged_blob: bool = False
    endless_blob: bool = False
    lost_blobs: bool = False
    broken_manifest: bool = False
    never_inline: bool = False
    host: str = ""
    """The host that artifacts are said to have been compiled on."""
    never_finishes: bool = False
    """Whether CompileGraph reports progress without end."""
    expected_s: float = 0.0
    """The seconds that CompileGraph says the graph will take."""
    no_outcome: bool = False
    """Whether CompileGraph's stream ends without an artifact and without a refusal."""
    refuse_graph: pb.Refused | None = None
    forget_always: bool = False
    may_publish: bool = True
    facts: Facts | None = None


class _RunService(runs_pb_grpc.RunServiceServicer):
    """Answers reports of runs, and explains a miss as the test told it to."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self._daemon = daemon

    def ReportRun(self, request: runs_pb.ReportRunRequest, context: grpc.ServicerContext) -> runs_pb.ReportRunResponse:
        self._daemon._arrive("ReportRun", request, context)
        return runs_pb.ReportRunResponse()

    def ExplainRun(
        self, request: runs_pb.ExplainRunRequest, context: grpc.ServicerContext
    ) -> runs_pb.ExplainRunResponse:
        self._daemon._arrive("ExplainRun", request, context)
        return self._daemon.explanation


class FakeDaemon(pb_grpc.CompileServiceServicer):
    """A daemon in this process, used as a context manager. A test that restarts it calls `start` and `stop` itself."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        self.token = "t" * 32
        self.secret = bytes(range(SECRET_BYTES))
        for name, data in (("token", self.token.encode()), ("secret", self.secret)):
            path = directory / name
            path.touch(mode=0o600)
            path.write_bytes(data)
        self.socket = directory / "daemon.sock"
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.artifacts: dict[tuple[str, str], list[bytes]] = defaultdict(list)
        self.blobs: dict[str, bytes] = {}
        self.published: list[str] = []
        self.knows_runs = True
        self.explanation = runs_pb.ExplainRunResponse()
        self.arrived = threading.Event()
        """Set when a call arrives that will hang."""
        self.release = threading.Event()
        """Once it is set, calls that hang end."""
        self._environments: set[str] = set()
        self._server: grpc.Server | None = None

    def __enter__(self) -> FakeDaemon:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def rotate_secret(self) -> None:
        """Sign with another secret from now on, as after the directory was made anew."""
        self.secret = bytes(reversed(self.secret))
        (self.directory / "secret").write_bytes(self.secret)

    def start(self) -> None:
        self._environments.clear()
        self.release.clear()
        server = grpc.server(
            futures.ThreadPoolExecutor(8),
            options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)],
        )
        pb_grpc.add_CompileServiceServicer_to_server(self, server)
        if self.knows_runs:
            runs_pb_grpc.add_RunServiceServicer_to_server(_RunService(self), server)
        server.add_insecure_port(f"unix:{self.socket}")
        server.start()
        note = {"address": f"unix:{self.socket}", "pid": os.getpid(), "started": 0.0}
        (self.directory / "daemon.json").touch(mode=0o600)
        (self.directory / "daemon.json").write_text(json.dumps(note))
        self._server = server

    def stop(self) -> None:
        """Disappear at once, as if killed; the socket stays wherever gRPC leaves it."""
        server, self._server = self._server, None
        stopped = server.stop(None) if server is not None else None
        self.release.set()  # set only now, so that a call in progress gets no answer
        if stopped is not None:
            stopped.wait(10)

    def put(self, key: str, environment: dict[str, str], data: bytes, *, guards: str = "", size: int = 0) -> Digest:
        """Store an artifact of an entry blob, and of an object blob if `size` says so; return its manifest's digest."""
        parts = {"": data, **({"k.so": (data * (size // len(data) + 1))[:size]} if size else {})}
        refs = []
        for name, content in parts.items():
            digest = digest_of(content)
            self.blobs[digest] = content
            refs.append(BlobRef(role="object" if name else "entry", name=name, sha256=digest, size=len(content)))
        manifest = encode_manifest(
            Manifest(
                key=key,
                environment=environment_id(environment),
                guards=guards,
                graph="",
                compile_s=20.0,
                origin="worker",
                blobs=tuple(refs),
            )
        )
        self.artifacts[key, environment_id(environment)].insert(0, manifest)
        return manifest_digest(manifest)

    # The protocol.

    def Handshake(self, request: pb.HandshakeRequest, context: grpc.ServicerContext) -> pb.HandshakeResponse:
        self._arrive("Handshake", request, context)
        faults = self.faults
        environment = dict(request.environment)
        if faults.wrong_environment:
            environment["added"] = "by the daemon"
        name = environment_id(environment)
        if not faults.forget_always:
            self._environments.add(name)
        facts = encode_facts(faults.facts) if faults.facts is not None else b""
        signature = sign_facts(self.secret, environment=name, facts=facts) if facts else b""
        return pb.HandshakeResponse(
            protocol_version=faults.protocol,
            server_version="fake",
            environment_id=name,
            refusal=faults.refusal,
            facts=facts,
            facts_signature=b"\x01" * 33 if faults.wrong_facts_signature else signature,
            may_publish=faults.may_publish,
        )

    def LookupArtifact(
        self, request: pb.LookupArtifactRequest, context: grpc.ServicerContext
    ) -> pb.LookupArtifactResponse:
        self._arrive("LookupArtifact", request, context)
        self._know(request.environment_id, context)
        manifests = self.artifacts[request.key, request.environment_id]
        return pb.LookupArtifactResponse(
            entries=[
                self._entry(request.key, manifest)
                for manifest in manifests
                if manifest_digest(manifest) not in request.have
            ]
        )

    def CompileGraph(
        self, request: pb.CompileGraphRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.CompileGraphResponse]:
        yield pb.CompileGraphResponse(queued=pb.Queued(position=0))
        self._arrive("CompileGraph", request, context)
        self._know(request.environment_id, context)
        start = time.monotonic()

        def running() -> pb.CompileGraphResponse:
            event = pb.Running(elapsed_s=time.monotonic() - start, phase="compiling", expected_s=self.faults.expected_s)
            return pb.CompileGraphResponse(running=event)

        yield running()
        while self.faults.never_finishes and context.is_active() and not self.release.wait(0.05):
            yield running()
        if self.faults.no_outcome:
            return
        if self.faults.refuse_graph is not None:
            yield pb.CompileGraphResponse(refused=self.faults.refuse_graph)
            return
        graph = request.graph.data or self.blobs[request.graph.sha256]
        entry = digest_of(graph).encode()
        refs = (BlobRef(role="entry", name="", sha256=digest_of(entry), size=len(entry)),)
        self.blobs[digest_of(entry)] = entry
        manifest = encode_manifest(
            Manifest(
                key=request.key,
                environment=Digest(request.environment_id),
                guards="",
                graph=digest_of(graph),
                compile_s=1.0,
                origin="worker",
                blobs=refs,
            )
        )
        yield pb.CompileGraphResponse(artifact=self._entry(request.key, manifest))

    def PublishArtifact(
        self, request: pb.PublishArtifactRequest, context: grpc.ServicerContext
    ) -> pb.PublishArtifactResponse:
        self._arrive("PublishArtifact", request, context)
        self._know(request.environment_id, context)
        manifest = decode_manifest(request.manifest)
        self.blobs |= {blob.sha256: blob.data for blob in request.blobs}
        for ref in manifest.blobs:
            if digest_of(self.blobs.get(ref.sha256, b"")) != ref.sha256:
                context.abort(grpc.StatusCode.NOT_FOUND, "a blob is not stored")
        self.artifacts[request.key, request.environment_id].insert(0, request.manifest)
        self.published.append(request.key)
        return pb.PublishArtifactResponse(stored=True)

    def ReadBlob(self, request: pb.ReadBlobRequest, context: grpc.ServicerContext) -> Iterator[pb.ReadBlobResponse]:
        data = self.blobs[request.sha256]
        half = len(data) // 2
        yield pb.ReadBlobResponse(data=data[: min(half, CHUNK_BYTES)])
        self._arrive("ReadBlob", request, context)
        for start in range(min(half, CHUNK_BYTES), len(data), CHUNK_BYTES):
            yield pb.ReadBlobResponse(data=self._mangled(data)[start : start + CHUNK_BYTES])
        while self.faults.endless_blob and context.is_active():
            yield pb.ReadBlobResponse(data=bytes(CHUNK_BYTES))

    def WriteBlob(
        self, request_iterator: Iterator[pb.WriteBlobRequest], context: grpc.ServicerContext
    ) -> pb.WriteBlobResponse:
        first = next(request_iterator)
        self._arrive("WriteBlob", first, context)
        data = first.data + b"".join(request.data for request in request_iterator)
        if digest_of(data) != first.sha256 or len(data) != first.size:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the data is not what was announced")
        self.blobs[first.sha256] = data
        return pb.WriteBlobResponse(stored=True)

    # The switches.

    def _arrive(self, name: str, request: Any, context: grpc.ServicerContext) -> None:
        self.calls[name] += 1
        self.requests[name].append(request)
        if ("authorization", f"Bearer {self.token}") not in [(m.key, m.value) for m in context.invocation_metadata()]:
            self._abort(context, grpc.StatusCode.UNAUTHENTICATED, "no such token")
        if name in self.faults.cut:
            self.arrived.set()
            threading.Thread(target=self.stop, daemon=True).start()
            self.release.wait(30)
        if name in self.faults.hang:
            self.arrived.set()
            self.release.wait(30)
        if name in self.faults.abort:
            self._abort(context, self.faults.abort[name], "as it was told to")

    @staticmethod
    def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, text: str) -> NoReturn:
        context.abort(code, text)
        raise AssertionError  # unreachable: abort raises, but its stub does not say so

    def _know(self, environment: str, context: grpc.ServicerContext) -> None:
        if environment not in self._environments:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the environment is not known: handshake again")

    def _entry(self, key: str, manifest: bytes) -> pb.ArtifactEntry:
        faults = self.faults
        decoded = decode_manifest(manifest)
        if faults.wrong_key:
            key = "another-key"
            manifest = encode_manifest(_renamed(decoded, key))
        if faults.broken_manifest:
            manifest = b"\x81" + manifest
        signature = sign_artifact(self.secret, key=key, environment=decoded.environment, manifest=manifest)
        if faults.wrong_signature:
            signature = signature[:-1] + bytes([signature[-1] ^ 1])
        inline = decoded.total_bytes <= MAX_INLINE_BYTES and not faults.never_inline
        blobs = [pb.Blob(sha256=ref.sha256, data=self._mangled(self.blobs[ref.sha256])) for ref in decoded.blobs]
        return pb.ArtifactEntry(
            manifest=manifest, signature=signature, blobs=blobs if inline else [], host=self.faults.host
        )

    def _mangled(self, data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if self.faults.damaged_blob else data


def _renamed(manifest: Manifest, key: str) -> Manifest:
    return Manifest(
        key=key,
        environment=manifest.environment,
        guards=manifest.guards,
        graph=manifest.graph,
        compile_s=manifest.compile_s,
        origin=manifest.origin,
        blobs=manifest.blobs,
    )


class RawListener:
    """Listens on the daemon's socket without being a daemon: it greets whoever connects, or accepts nobody."""

    def __init__(self, path: Path, greeting: bytes | None) -> None:
        self._greeting = greeting
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> RawListener:
        if self._greeting is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        if self._greeting is not None:
            self._thread.join(10)
        for each in (*self._open, self._socket):
            each.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
                self._open.append(connection)
                connection.sendall(self._greeting or b"")
            except ConnectionError:  # the client's probe left before the greeting
                continue
            except OSError:
                return
