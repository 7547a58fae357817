"""One connection to a daemon, and what may be believed of its answers.

Guarantees: an absent daemon is noticed with a plain socket, before gRPC is imported. Every call has a deadline. An
`Artifact` that is returned was signed by the owner of the daemon's secret over exactly the asked key, our environment
and its manifest, and every blob has the size and the SHA-256 that the manifest says; nothing else is ever returned.
Only `ClientError` is raised.

Not guaranteed: that the artifact's guards hold for the graph at hand. That is torch's to say.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from compile_client.config import ClientConfig
from compile_client.errors import (
    AbsentError,
    ArtifactError,
    BadDigestError,
    ClientError,
    EnvironmentUnknownError,
    HandshakeNeededError,
    InvalidError,
    MalformedAnswerError,
    RefusedError,
    SlowError,
    TlsError,
    UnavailableError,
)
from compile_client.transport.deadline import Deadline
from compile_client.transport.endpoint import (
    Address,
    Credentials,
    TcpAddress,
    UnixAddress,
    find_address,
    has_tls_keys,
    probe,
    read_credentials,
)
from compile_client.transport.messages import Artifact, CompileEvent, CompileRequest, LocalCompile, Refusal, Running
from compile_client.transport.records import ExplainedGraph, RunPart
from compile_client.transport.start_daemon import starter, stay_present
from compile_client.transport.verify import verified_blob, verified_facts, verified_manifest
from compile_wire import tracing
from compile_wire.digest import Digest, digest_of
from compile_wire.environment import check_environment, environment_id
from compile_wire.errors import MalformedError
from compile_wire.facts import Facts
from compile_wire.limits import (
    MAX_ARTIFACT_BYTES,
    MAX_ENTRIES_PER_LOOKUP,
    MAX_GRAPH_BYTES,
    MAX_HAVE,
    MAX_INLINE_BYTES,
    PROTOCOL_VERSION,
)
from compile_wire.manifest import BlobRef, Manifest, manifest_digest

if TYPE_CHECKING:  # importing it at run time imports grpc: see `Connection.open`
    from compile_client.transport.rpc import Entry, Rpc

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """Holds what a lookup brought: artifacts that may be used, and what was wrong with the rest."""

    artifacts: list[Artifact]
    rejected: list[ArtifactError]


def _with_handshake_retry(
    method: Callable[Concatenate[Connection, Deadline, P], T],
) -> Callable[Concatenate[Connection, Deadline, P], T]:
    """Make a method of a connection greet the daemon once more where it has restarted, and then ask again."""

    @functools.wraps(method)
    def asking_twice(connection: Connection, deadline: Deadline, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(connection, deadline, *args, **kwargs)
        except HandshakeNeededError:
            connection.shake_hands(deadline)
            return method(connection, deadline, *args, **kwargs)

    return asking_twice


class Connection:
    """Asks one daemon, over one channel, for verified answers.

    Made by `open`. Safe to call from any thread; must not be used in a forked child.
    """

    def __init__(
        self,
        config: ClientConfig,
        address: Address,
        rpc: Rpc,
        credentials: Credentials,
        environment: Mapping[str, str],
        program: str,
    ) -> None:
        self._config = config
        self._rpc = rpc
        self._secret = credentials.secret
        self._environment = environment
        self._program = program
        # A path of ours means something to the daemon only where both are one user on one host.
        self._interpreter = sys.executable or "" if isinstance(address, UnixAddress) else ""
        self._lock = threading.Lock()
        self._calls = 0
        self._retired = False
        self.environment_id = environment_id(environment)
        self.facts = Facts()
        self.may_publish = False

    @classmethod
    def open(
        cls, config: ClientConfig, environment: Callable[[], Mapping[str, str]], program: str, deadline: Deadline
    ) -> Connection:
        """Find a daemon, prove who we are, agree on the environment.

        `environment` is called only when a daemon listens and its directory is safe.
        """
        secured = has_tls_keys(config.directory)
        address = find_address(config.address, config.directory, secured=secured)
        # A name is left to gRPC, which looks it up within the deadline.
        if isinstance(address, UnixAddress) or address.is_number:
            try:
                probe(address, deadline.within(config.remote_connect_s if secured else config.connect_s))
            except AbsentError:
                if not config.starts_daemon or not isinstance(address, UnixAddress):
                    raise
                starter.wait(config, deadline.within(config.start_s))
                address = find_address(config.address, config.directory, secured=secured)
        credentials = read_credentials(config.directory, tls=secured and isinstance(address, TcpAddress))
        try:
            fields = dict(environment())
            check_environment(fields)
        except Exception as error:  # the caller's code, which asks compilers and drivers
            raise EnvironmentUnknownError(f"the environment cannot be described ({error})") from error
        from compile_client.transport.rpc import Rpc

        rpc = Rpc(address.grpc_target, credentials.token, credentials.tls)
        connection = cls(config, address, rpc, credentials, fields, program)
        try:
            connection.shake_hands(deadline)
        except UnavailableError as error:
            rpc.close()
            raise _explained(error, address, credentials, deadline.within(config.remote_connect_s)) from error
        except BaseException:
            rpc.close()
            raise
        if isinstance(address, UnixAddress):
            stay_present(config.directory)
        return connection

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the channel open for the length of a call, also when another thread retires the connection."""
        with self._lock:
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                idle = self._retired and self._calls == 0
            if idle:
                self._rpc.close()

    def retire(self) -> None:
        """Close the channel as soon as no call is under way."""
        with self._lock:
            close = self._calls == 0 and not self._retired
            self._retired = True
        if close:
            self._rpc.close()

    @_with_handshake_retry
    def lookup(self, deadline: Deadline, key: str, have: Collection[Digest]) -> Found:
        """Return the verified artifacts under `key`, newest first, less those whose manifests are in `have`."""
        known = tuple(have)[-MAX_HAVE:]
        timeout_s = deadline.within(self._config.answer_s)
        entries = self._rpc.lookup(self.environment_id, key, known, timeout_s=timeout_s)
        found = Found([], [])
        room = MAX_ARTIFACT_BYTES
        for entry in entries[:MAX_ENTRIES_PER_LOOKUP]:
            try:
                manifest = self._verified(entry, key)
                if manifest.total_bytes > room:  # the newest are worth most; the rest is not held in memory as well
                    break
                room -= manifest.total_bytes
                found.artifacts.append(self._fetch_blobs(entry, manifest, deadline))
            except ArtifactError as error:
                found.rejected.append(error)
        return found

    @_with_handshake_retry
    def compile(
        self, deadline: Deadline, request: CompileRequest, on_event: Callable[[CompileEvent | None], None]
    ) -> Artifact | Refusal:
        """Have a graph or kernel compiled and return the verified artifact, or why the daemon would not.

        `on_event` is called in this thread for each event, and with None about once a second between them. This
        connection's environment must be one of the request's kind.
        """
        if len(request.payload) > MAX_GRAPH_BYTES:
            raise InvalidError(f"the {request.kind} has {len(request.payload)} bytes, more than {MAX_GRAPH_BYTES}")
        answers = self._rpc.compile(
            self.environment_id,
            replace(request, have=request.have[-MAX_HAVE:]),
            self._inline_or_upload(request.payload, room=MAX_INLINE_BYTES, deadline=deadline),
            interpreter=self._interpreter,
            program=self._program,
            timeout_s=deadline.within(self._config.graph_timeout_s),
            silence_s=self._config.silence_s,
        )
        outcome = self._await_result(request.key, answers, on_event, deadline)
        if request.kind == "graph" and isinstance(outcome, Artifact) and self.facts == Facts():
            # The environment's first worker has come up meanwhile, and what it found out saves us finding it out too.
            with suppress(ClientError):  # what we came for is here already
                self.shake_hands(deadline)
        return outcome

    @_with_handshake_retry
    def publish(self, deadline: Deadline, compiled: LocalCompile) -> None:
        """Hand in what was compiled here. Returns when the daemon has stored it."""
        try:
            manifest, blobs = compiled.packed(self.environment_id)
        except MalformedError as error:
            raise InvalidError(f"this artifact cannot be published: {error}") from error
        room = MAX_INLINE_BYTES - len(manifest)
        inline: dict[Digest, bytes] = {}
        for digest, data in sorted(blobs.items(), key=lambda item: len(item[1])):
            if len(data) <= room:
                inline[digest] = data
                room -= len(data)
            else:
                self._rpc.write_blob(digest, data, timeout_s=self._transfer_s(len(data), deadline))
        self._rpc.publish(
            self.environment_id,
            compiled.key,
            manifest,
            inline,
            self._inline_or_upload(compiled.graph, room=room, deadline=deadline) if compiled.graph else None,
            program=self._program,
            disputed=compiled.disputed,
            timeout_s=self._transfer_s(sum(map(len, inline.values())), deadline),
        )

    def report_run(self, deadline: Deadline, part: RunPart) -> bool:
        """Hand in a piece of the process's record; return True. Raises `ClientError`."""
        self._rpc.report_run(
            part,
            program=self._program,
            environment_id=self.environment_id,
            timeout_s=deadline.within(self._config.answer_s),
        )
        return True

    def explain_run(self, deadline: Deadline, run: str) -> list[ExplainedGraph]:
        """Return what the daemon says of the graphs of a run that were not there."""
        return self._rpc.explain_run(run, timeout_s=deadline.within(self._config.explain_s))

    def shake_hands(self, deadline: Deadline) -> None:
        """Introduce this process to the daemon, and learn what it knows of the environment."""
        welcome = self._rpc.handshake(
            self._environment,
            protocol=PROTOCOL_VERSION,
            version=_version(),
            program=self._program,
            interpreter=self._interpreter,
            timeout_s=deadline.within(self._config.answer_s),
        )
        if welcome.refusal:
            raise RefusedError(f"the daemon refuses this client: {welcome.refusal}")
        if welcome.protocol_version != PROTOCOL_VERSION:
            raise RefusedError(f"the daemon speaks protocol {welcome.protocol_version}, this client {PROTOCOL_VERSION}")
        if welcome.environment_id != self.environment_id:
            raise EnvironmentUnknownError("the daemon read another environment than the one that was sent")
        self.facts = (
            verified_facts(self._secret, welcome.facts_signature, welcome.facts, environment=self.environment_id)
            if welcome.facts
            else Facts()
        )
        self.may_publish = welcome.may_publish

    def _await_result(
        self,
        key: str,
        answers: Generator[CompileEvent | Entry | Refusal | None, None, None],
        on_event: Callable[[CompileEvent | None], None],
        deadline: Deadline,
    ) -> Artifact | Refusal:
        """Listen to a compile until it ends, and check what it ends in."""
        with closing(answers):  # leaving early cancels the call
            for answer in answers:
                if isinstance(answer, Refusal):
                    return answer
                if answer is None or isinstance(answer, CompileEvent):
                    on_event(answer)
                    if isinstance(answer, Running):
                        self._check_pace(answer)
                    continue
                return self._fetch_blobs(answer, self._verified(answer, key), deadline)
        raise MalformedAnswerError("the compile's stream ended without an artifact and without a refusal")

    def _check_pace(self, running: Running) -> None:
        """Raise `SlowError` where torch would by now have done the compile itself."""
        bound = max(self._config.hedge_s, self._config.hedge_factor * running.expected_s)
        if running.elapsed_s > bound:
            raise SlowError(f"a compile runs for {running.elapsed_s:.0f} s, more than {bound:.0f} s")

    def _inline_or_upload(self, graph: bytes, *, room: int, deadline: Deadline) -> bytes | Digest:
        """Return the graph itself where a message has room for it, else its name after it was written."""
        if len(graph) <= room:
            return graph
        digest = digest_of(graph)
        self._rpc.write_blob(digest, graph, timeout_s=self._transfer_s(len(graph), deadline))
        return digest

    def _verified(self, entry: Entry, key: str) -> Manifest:
        return verified_manifest(
            self._secret, entry.signature, entry.manifest, key=key, environment=self.environment_id
        )

    def _fetch_blobs(self, entry: Entry, manifest: Manifest, deadline: Deadline) -> Artifact:
        """Return the artifact with every blob that came along or has to be read, each checked."""
        inline = dict(entry.blobs)
        blobs: dict[Digest, bytes] = {}
        for ref in manifest.blobs:
            data = blobs.get(ref.sha256) or inline.get(ref.sha256)
            if data is None:
                with tracing.span("transfer"):
                    data = self._read(ref, deadline)
            blobs[ref.sha256] = verified_blob(data, ref)
        return Artifact(manifest, manifest_digest(entry.manifest), blobs, entry.host)

    def _read(self, ref: BlobRef, deadline: Deadline) -> bytes:
        data: list[bytes] = []
        size = 0
        with closing(self._rpc.read_blob(ref.sha256, timeout_s=self._transfer_s(ref.size, deadline))) as pieces:
            for piece in pieces:
                size += len(piece)
                if size > ref.size:
                    raise BadDigestError(f"a blob is longer than the {ref.size} bytes of its manifest")
                data.append(piece)
        return b"".join(data)

    def _transfer_s(self, size: int, deadline: Deadline) -> float:
        return deadline.within(self._config.answer_s + size / self._config.min_transfer_bytes_per_s)


def _explained(error: ClientError, address: Address, credentials: Credentials, timeout_s: float) -> ClientError:
    """Return what is wrong with a connection that did not come about; over TLS gRPC itself cannot tell."""
    if (keys := credentials.tls) is None or not isinstance(address, TcpAddress):
        return error
    from compile_wire.endpoint.tls_diagnosis import explain  # after a failure only

    finding = explain(
        address.host,
        address.port,
        authority=keys.authority_path,
        certificate=keys.certificate_path,
        expires=keys.expires,
        timeout_s=timeout_s,
    )
    match finding.cause:
        case "absent":
            return AbsentError(finding.text)
        case "tls" | "refused":
            return TlsError(finding.text)
        case "silent":
            return UnavailableError(finding.text)
        case "fine":
            return error


def _version() -> str:
    from importlib import metadata  # as heavy as all the rest of this module, and needed once a connection

    try:
        return metadata.version("compiler-daemon")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        return "source"
