"""The domain's values: what is asked, what a worker gives, what a waiter hears. No state, no wire types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from compile_wire.digest import Digest
from compile_wire.kernel.environment import is_kernel_environment
from compile_wire.manifest import Origin
from compiler_daemon.errors import EnvironmentKindError, RefusalReason

WorkerKind = Literal["graphs", "kernels"]
"""What a worker is started for: a worker of kernels has no torch, and is ready in a fraction of a second."""


def worker_kind(fields: Mapping[str, str]) -> WorkerKind:
    """Return which workers serve an environment."""
    return "kernels" if is_kernel_environment(fields) else "graphs"


def check_worker_kind(kind: WorkerKind, environment: Digest, fields: Mapping[str, str]) -> None:
    """Raise `EnvironmentKindError` where an environment is none that such a job can be for."""
    if worker_kind(fields) != kind:
        raise EnvironmentKindError(environment, kind)


ARTIFACT_KINDS: Mapping[WorkerKind, str] = {"graphs": "graph", "kernels": "kernel"}
"""What the artifact of such a job is, by the roles of its blobs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One graph, or one kernel, to compile, for one environment."""

    kind: WorkerKind
    """What the call was for. The environment's kind must fit it, and never decides it."""
    environment: Digest
    key: str
    """The key that torch computed in the client, and the worker must arrive at the same; of a kernel, Triton's."""
    graph: bytes
    """A GraphSpec, or a KernelSpec in an environment of kernels."""
    interpreter: str
    """The Python that may start a worker for it."""
    program: str
    replay: bool = False
    """Compiled from a kept graph, for nobody in particular; it may have been captured by another torch."""
    ahead: bool = False
    """Nobody waits for it now."""

    @property
    def is_background(self) -> bool:
        """Whether other work goes before it. What somebody waits for is as urgent as torch's own compile."""
        return self.ahead or self.replay

    @property
    def origin(self) -> Origin:
        """What the artifact's manifest says of who compiled it."""
        return "replay" if self.replay else "worker"


@dataclass(frozen=True, kw_only=True, slots=True)
class CompileResult:
    """Holds what a worker compiled. Its blobs have gone to the store already."""

    manifest: bytes
    blobs: Mapping[Digest, int]
    """Those that it handed over for this job, with their sizes."""
    facts: bytes
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerHello:
    """Holds what a worker says of itself when it is ready."""

    environment: Digest
    fields: Mapping[str, str]
    facts: bytes
    unconfined: str = ""
    """Why nothing keeps it from files and network; empty where it is confined."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphSource:
    """A graph as a client gives it: the bytes themselves, or the digest of a blob written before."""

    data: bytes | None = None
    sha256: Digest | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An artifact as a client receives it."""

    manifest: bytes
    signature: bytes
    digest: Digest
    compile_s: float
    origin: Origin
    blobs: Mapping[Digest, bytes]
    """All of them, or none where they are too large for a message."""
    host: str = ""
    """The node that compiled it, where it has come from a shared tier just now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedEvent:
    """Tells a waiter that the job waits for a worker."""

    position: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningEvent:
    """Tells a waiter that a worker compiles the job."""

    elapsed_s: float
    phase: str
    expected_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """The daemon will not compile this graph; the client does."""

    reason: RefusalReason
    message: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerView:
    """A worker as an operator sees it."""

    pid: int
    environment: str
    state: str
    key: str
    elapsed_s: float
    jobs_done: int
    rss_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FlightView:
    """A compile as an operator sees it."""

    environment: Digest
    key: str
    program: str
    phase: str
    """As waiters hear it; "queued" before a worker is there."""
    position: int
    """Jobs before it while it waits."""
    waited_s: float
    """Since it was asked for."""
    elapsed_s: float
    """Of these, on a worker."""
    expected_s: float
    """How long it took before; 0 where there is no history."""
    eta_s: float | None
    """Until it is expected to be done; None where there is no history."""
    waiters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class QuarantinedView:
    """A graph that is refused for a while."""

    environment: Digest
    key: str
    reason: str
    left_s: float


Event = QueuedEvent | RunningEvent | Entry | Refusal
