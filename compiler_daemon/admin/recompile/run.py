"""`replay`: graphs, from a file or from what the daemon keeps, handed to it to be compiled again; several at a time."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import grpc

from compile_wire.digest import Digest, digest_of
from compile_wire.errors import WireError
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import encode_graph
from compile_wire.kernel.environment import is_kernel_environment
from compile_wire.limits import CHUNK_BYTES, MAX_INLINE_BYTES
from compile_wire.v1 import compiler_daemon_pb2 as base_pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as base_pb_grpc
from compile_wire.v1 import replay_pb2 as pb
from compile_wire.v1 import replay_pb2_grpc as pb_grpc
from compiler_daemon.admin.bundle import Bundle, graphs_of
from compiler_daemon.admin.connection import OperatorClient
from compiler_daemon.admin.inventory.calls import InventoryClient
from compiler_daemon.errors import DaemonError

_CALL_S = 7200.0
"""For one graph, most of it in the daemon's queue, which has its own limits."""

_OF_ONE_GRAPH = frozenset(
    {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
)
"""Errors that say nothing about the other graphs: it has gone meanwhile, is none, or there is no room for it now."""

Status = Literal["compiled", "there", "refused"]

Serves = Literal["same", "here", "settings", "torch"]
"""Whom the artifact serves: the trainers that asked for it; the same trainers in the environment of this machine;
trainers whose settings are those that the graph was compiled with here; trainers of another torch, where its dynamo
makes the same graph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayRequest:
    """Describes one graph that was asked for once, and is to be compiled again."""

    environment: Digest
    fields: Mapping[str, str]
    """Of that environment; empty where nobody knows them any more."""
    key: str
    program: str
    digest: Digest
    data: bytes | None
    """None where the daemon keeps it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """Says how the compile of one graph ended."""

    request: ReplayRequest
    status: Status
    environment: str = ""
    key: str = ""
    compile_s: float = 0.0
    serves: Serves = "same"
    why: str = ""


def kept(client: InventoryClient, *, program: str) -> list[ReplayRequest]:
    """Return the graphs that the daemon keeps, newest first; of a program where one is named."""
    fields = {environment: view.fields for environment, view in client.environments().items()}
    return [
        ReplayRequest(
            environment=row.environment,
            fields=fields.get(row.environment, {}),
            key=row.key,
            program=row.program,
            digest=row.graph,
            data=None,
        )
        for row in client.requests(program=program)
    ]


def from_file(bundle: Bundle, *, program: str) -> Iterator[ReplayRequest]:
    """Yield the graphs of an open file that `export --graphs` wrote. Raises `BundleError` where one is damaged."""
    for one in graphs_of(bundle):
        if program in ("", one.program):
            yield ReplayRequest(
                environment=one.environment,
                fields=one.fields,
                key=one.key,
                program=one.program,
                digest=one.digest,
                data=one.data,
            )


class Replayer:
    """Hands graphs to one daemon to have them compiled again."""

    def __init__(self, operator: OperatorClient, *, interpreter: str, threads: int | None, jobs: int) -> None:
        """`threads`: compile for trainers that have so many, whatever the graphs were captured with."""
        self._operator = operator
        self._interpreter = interpreter
        self._threads = threads
        self._jobs = jobs
        self._calls: set[grpc.Call] = set()
        self._lock = threading.Lock()
        self._known = {
            environment: view.fields for environment, view in InventoryClient(operator).environments().items()
        }

    def run(self, graphs: Iterable[ReplayRequest], note: Callable[[Outcome], None]) -> list[Outcome]:
        """Replay all of them, and tell of each as it ends. A graph that is refused does not stop the others.

        Raises `DaemonError` where the daemon cannot be talked to. Whatever ends it, the daemon finishes what it has
        begun, and a second run finds that there.
        """
        outcomes: list[Outcome] = []
        source = iter(graphs)
        with self._operator.calls() as (channel, metadata), ThreadPoolExecutor(self._jobs) as pool:
            pending: set[Future[Outcome]] = set()

            def fill() -> None:  # a few ahead of those under way: a file's graphs are not all held in memory
                for request in islice(source, 2 * self._jobs - len(pending)):
                    pending.add(pool.submit(self._replay, channel, metadata, request))

            try:
                fill()
                while pending:
                    done = next(as_completed(pending))
                    pending.remove(done)
                    outcomes.append(done.result())
                    note(outcomes[-1])
                    fill()
            except BaseException:
                self._hang_up(pending)
                raise
        return outcomes

    def _replay(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...], request: ReplayRequest) -> Outcome:
        try:
            graph, key = self._prepared(request)
        except WireError as error:
            return _refused(request, f"unsupported: {error}")
        message = pb.ReplayGraphRequest(
            graph=_sent(channel, metadata, graph) if graph is not None else base_pb.Graph(sha256=request.digest),
            environment_id=request.environment,
            key=key,
            program=request.program,
            interpreter=self._interpreter,
        )
        call = pb_grpc.ReplayServiceStub(channel).ReplayGraph(message, timeout=_CALL_S, metadata=metadata)
        with self._lock:
            self._calls.add(call)
        try:
            for event in call:
                if event.HasField("replayed"):
                    return self._outcome(request, event.replayed)
                if event.HasField("refused"):
                    return _refused(request, _reason(event.refused))
        except grpc.RpcError as error:
            if error.code() not in _OF_ONE_GRAPH:
                raise
            return _refused(request, f"{error.code().name.lower()}: {error.details()}")
        finally:
            with self._lock:
                self._calls.discard(call)
        raise DaemonError("the daemon's answer ended without a result: look at its log")

    def _prepared(self, request: ReplayRequest) -> tuple[bytes | None, str]:
        """Return what to send of a graph, None for what the daemon keeps, and the key it must have, empty for any."""
        if self._threads is None or is_kernel_environment(request.fields):  # a kernel knows no threads
            return request.data, request.key
        data = request.data
        if data is None:
            data = b"".join(InventoryClient(self._operator).graph(request.digest))
        spec = decode_graph(data)
        if spec.state.get("threads") == self._threads:
            return request.data, request.key
        return encode_graph(dataclasses.replace(spec, state={**spec.state, "threads": self._threads})), ""

    def _outcome(self, request: ReplayRequest, replayed: pb.Replayed) -> Outcome:
        return Outcome(
            request=request,
            status="compiled" if replayed.compiled else "there",
            environment=replayed.environment_id,
            key=replayed.key,
            compile_s=replayed.compile_s,
            serves=self._serves(request, replayed),
        )

    def _serves(self, request: ReplayRequest, replayed: pb.Replayed) -> Serves:
        if replayed.key == request.key:
            return "same" if replayed.environment_id == request.environment else "here"
        if replayed.environment_id == request.environment:
            return "settings"
        if Digest(replayed.environment_id) not in self._known:
            with self._lock:
                self._known = {
                    environment: view.fields
                    for environment, view in InventoryClient(self._operator).environments().items()
                }
        here = self._known.get(Digest(replayed.environment_id), {})
        # torch's own key holds a digest of torch's sources: another build of the same version counts as another torch.
        same_torch = all(here.get(name) == request.fields.get(name) for name in ("torch", "torch_key"))
        return "settings" if same_torch else "torch"

    def _hang_up(self, pending: Iterable[Future[Outcome]]) -> None:
        for future in pending:
            future.cancel()
        with self._lock:
            for call in self._calls:
                call.cancel()


def _sent(channel: grpc.Channel, metadata: tuple[tuple[str, str], ...], graph: bytes) -> base_pb.Graph:
    """Return the graph itself where a message has room for it, else its name after it was written."""
    if len(graph) <= MAX_INLINE_BYTES:
        return base_pb.Graph(data=graph)
    digest = digest_of(graph)

    def messages() -> Iterator[base_pb.WriteBlobRequest]:
        yield base_pb.WriteBlobRequest(sha256=digest, size=len(graph))
        for begin in range(0, len(graph), CHUNK_BYTES):
            yield base_pb.WriteBlobRequest(data=graph[begin : begin + CHUNK_BYTES])

    base_pb_grpc.CompileServiceStub(channel).WriteBlob(messages(), timeout=_CALL_S, metadata=metadata)
    return base_pb.Graph(sha256=digest)


def _refused(request: ReplayRequest, why: str) -> Outcome:
    return Outcome(request=request, status="refused", why=why)


def _reason(refused: base_pb.Refused) -> str:
    name = base_pb.Refused.Reason.Name(refused.reason).removeprefix("REASON_").lower()
    return f"{name}: {refused.message}"
