"""Settings: frozen, keyword-only, units in names.

Only `DaemonLocation.resolve`, `sandbox_mode` and `workers.variables` read them from the environment.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

import psutil

from compile_wire.endpoint.address import SOCKET_NAME, Address, TcpAddress
from compiler_daemon.endpoint import read_address
from compiler_daemon.errors import UsageError

DIRECTORY_VARIABLE = "COMPILER_DAEMON_DIR"
ADDRESS_VARIABLE = "COMPILER_DAEMON_ADDRESS"
SANDBOX_VARIABLE = "COMPILER_DAEMON_SANDBOX"
CONFIG_VARIABLE = "COMPILER_DAEMON_CONFIG"

ClientAuth = Literal["certificate", "token"]
TierAccept = Literal["worker", "any"]
"""What a client shows over TLS: TLS itself cannot ask for one or the other."""


SandboxMode = Literal["auto", "off", "required"]
"""Whether workers are confined: where the kernel can, never, or else there is no daemon."""


def sandbox_mode(environ: Mapping[str, str], argument: SandboxMode | None = None) -> SandboxMode:
    """Argument over environment over default. Raises `UsageError` where the variable says something else."""
    named = argument or environ.get(SANDBOX_VARIABLE) or "auto"
    if named not in get_args(SandboxMode):
        raise UsageError(f"{SANDBOX_VARIABLE}={named[:40]!r} is unknown: it is auto, off or required")
    return cast("SandboxMode", named)


def default_workers() -> int:
    """Half of the cores this process may use: one compile keeps about two busy, and the trainers need the rest."""
    return max(1, len(os.sched_getaffinity(0)) // 2)


def default_memory_bytes() -> int:
    """Half of the machine's memory for one job: a second one, and the trainers, must still fit."""
    return psutil.virtual_memory().total // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """Configures the worker processes: how many, how they are started, and what each may use."""

    command: tuple[str, ...] = ("-P", "-m", "compiler_daemon.worker")
    """What the interpreter is given. `-P`: a worker never imports from the directory it happens to run in."""
    interpreter: str = field(default_factory=lambda: sys.executable)
    """For clients that name none. A virtual environment's python is a symbolic link, and is never resolved."""
    max_workers: int = field(default_factory=default_workers)
    memory_bytes: int = field(default_factory=default_memory_bytes)
    """Resident memory of a worker and all its children together during a job."""
    wall_s: float = 900.0
    """A job that runs longer is killed."""
    start_s: float = 120.0
    """From start to hello: importing torch from a cold network disk takes most of a minute."""
    cpu_s: float = 7200.0
    """Processor time of a worker and all its children together for one job."""
    watch_s: float = 0.5
    """How often a job's memory and time are looked at."""
    jobs_per_worker: int = 200
    """A worker is replaced after so many: torch's own caches only ever grow."""
    idle_s: float = 900.0
    """A worker that nobody has needed for so long ends."""
    open_files: int = 4096
    """A worker's limit; a compile with all its children's pipes opens a few hundred."""
    log_bytes: int = 4 * 2**20
    """Each worker's log is cut when it is longer."""
    retry_start_s: float = 30.0
    """An interpreter whose worker did not come up is not tried again before that."""
    hello_valid_s: float = 300.0
    """How long a worker's statement of its environment stands for others of the same interpreter: a virtual environment
    changes when somebody upgrades it, and asking anew costs the start of a worker."""
    niceness: int = 10
    """Of what nobody waits for, a worker that gets warm included: a training beside it goes first."""
    stand_back_s: float = 15.0
    """A worker that is started and not waited for takes its full share after that: where the processors are never free,
    it would not come up within `start_s`, and whoever came next would be told that there is none."""
    sandbox: SandboxMode = "auto"
    variables: tuple[str, ...] = ()
    """Environment variables that workers get beside the known ones: names, in which `*` stands for anything."""
    headers_after_s: float = 30.0
    """When nothing was to be done for so long, torch's header is compiled for all workers to come."""
    prewarm: bool = True
    """Start a worker at the handshake, so that the first graph does not wait for `import torch`."""
    first_interpreter: str = ""
    """A worker of this one is started with the daemon: whoever starts both knows who comes next. Empty for none."""

    def __post_init__(self) -> None:
        if self.max_workers < 1:
            raise ValueError(f"there must be at least one worker, not {self.max_workers}")
        if min(self.wall_s, self.cpu_s, self.start_s, self.watch_s, self.memory_bytes, self.jobs_per_worker) <= 0:
            raise ValueError("limits of workers must be positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class FlightConfig:
    """Configures how compiles are queued and what their waiters hear."""

    max_queued: int = 256
    """Graphs that may wait for a worker; at 20 s each this is more than an hour of one worker's time."""
    max_queued_bytes: int = 512 * 2**20
    """Of the graphs that wait: they are kept in memory."""
    event_s: float = 1.0
    """A waiter hears something at least so often."""
    quarantine_s: float = 600.0
    """A graph that has killed two workers is refused for so long."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TierConfig:
    """Configures what a daemon shares with other daemons."""

    places: tuple[str, ...] = ()
    """Addresses of tiers, in the order in which they are asked, as `tier.address` reads them; none is no sharing."""
    accept: TierAccept = "any"
    """Whose compiles are taken from there: workers' alone, or also what trainers have published."""
    lease_s: float = 10.0
    """A compile of another node's that says nothing for so long is taken over."""
    beat_s: float = 3.0
    """How often a node says that it still compiles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FarmConfig:
    """Configures where else graphs are compiled: by the workers of a Dask scheduler."""

    address: str
    """As Dask writes it: tls://HOST:PORT, or tcp://HOST:PORT on the loopback interface."""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    """Files in PEM, of the scheduler's own authority; empty without TLS."""
    wait_s: float = 5.0
    """A graph that nobody there has begun by then is compiled here."""
    silence_s: float = 15.0
    """A graph that was begun there, and of which nothing was heard for so long, is compiled here."""

    def __post_init__(self) -> None:
        if min(self.wait_s, self.silence_s) <= 0:
            raise ValueError("the limits of a farm must be positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class DaemonConfig:
    """Configures one daemon."""

    directory: Path
    address: Address
    insecure_loopback: bool = False
    """Allows a TCP listener on the loopback interface, where every user of the machine can connect."""
    client_auth: ClientAuth = "certificate"
    """What clients show over TLS."""
    reflection: bool = False
    allow_publish: bool = True
    store_max_bytes: int = 20 * 2**30
    page_port: int | None = None
    """Of the loopback interface, for the web page and the metrics; 0 for any that is free, None for no page."""
    page_optional: bool = False
    """Nobody asked for the page: where the loopback interface cannot be used, the daemon serves without."""
    drain_s: float = 60.0
    """A graceful stop waits so long for running jobs, then hands them back."""
    idle_s: float | None = None
    """A daemon that nobody has used for so long ends; None serves until it is stopped."""
    pool: PoolConfig = field(default_factory=PoolConfig)
    flights: FlightConfig = field(default_factory=FlightConfig)
    tier: TierConfig = field(default_factory=TierConfig)
    farm: FarmConfig | None = None
    """None compiles on this machine alone."""

    def __post_init__(self) -> None:
        if self.insecure_loopback and isinstance(self.address, TcpAddress) and not self.address.is_local:
            raise UsageError(
                f"{self.address} is no loopback address, and plain TCP would carry token and artifacts unprotected: "
                "leave --insecure-loopback out, and `compiler-daemon keys init` makes what TLS needs"
            )
        if self.idle_s is not None and self.idle_s <= 0:
            raise ValueError(f"the time without users must be positive, got {self.idle_s}")
        if self.store_max_bytes <= 0:
            raise ValueError(f"the store's limit must be positive, got {self.store_max_bytes}")

    @property
    def uses_tls(self) -> bool:
        """Whether clients connect with TLS; the Unix socket of the directory is then open beside it."""
        return isinstance(self.address, TcpAddress) and not self.insecure_loopback

    @property
    def local_address(self) -> Address:
        """Where the directory's own user connects: over TLS, too, there is the Unix socket."""
        return read_address(f"unix:{self.directory / SOCKET_NAME}") if self.uses_tls else self.address

    @property
    def store_root(self) -> Path:
        """Where artifacts live."""
        return self.directory / "store"

    @property
    def runs(self) -> Path:
        """The file of what trainers reported."""
        return self.directory / "runs.sqlite3"

    @property
    def scratch(self) -> Path:
        """Where workers compile; emptied at every start."""
        return self.directory / "scratch"

    @property
    def headers(self) -> Path:
        """Headers of torch's that are compiled already, for every worker to read."""
        return self.directory / "headers"

    @property
    def logs(self) -> Path:
        """Where workers' stderr goes."""
        return self.directory / "log"


@dataclass(frozen=True, kw_only=True, slots=True)
class DaemonLocation:
    """Says where a daemon is, or will be: its directory and its address."""

    directory: Path
    address: Address | None
    """None where nobody named one."""

    @classmethod
    def resolve(cls, environ: Mapping[str, str], *, directory: Path | None, address: str | None) -> DaemonLocation:
        """Argument over environment over default; the only reader of the environment.

        Raises `UsageError` where the address is none.
        """
        named = environ.get(ADDRESS_VARIABLE) if address is None else address
        return cls(
            directory=_resolve_directory(environ, directory),
            address=read_address(named or "") if named or address is not None else None,
        )

    @property
    def default_address(self) -> Address:
        """Where a daemon of this directory listens unless told otherwise."""
        return read_address(f"unix:{self.directory / SOCKET_NAME}")


def _resolve_directory(environ: Mapping[str, str], argument: Path | None) -> Path:
    if argument is not None:
        return Path(os.path.abspath(argument))
    if named := environ.get(DIRECTORY_VARIABLE):
        return Path(os.path.abspath(Path(named).expanduser()))
    cache = environ.get("XDG_CACHE_HOME", "")
    # The XDG rules: a relative path is to be ignored.
    return (Path(cache) if os.path.isabs(cache) else Path.home() / ".cache") / "compiler-daemon"
