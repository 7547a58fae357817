"""Floods against a real daemon over TLS, and how another client fares meanwhile.

A review found each of these floods: values that grow when they are read, environments made up by the hundred, and
connections that say nothing. `tools/floods.py` plays them for longer.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc
import psutil

from compile_wire.limits import PROTOCOL_VERSION
from compile_wire.packing import pack, unpack
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import runs_pb2, runs_pb2_grpc
from tests.daemon.daemon_process import ENVIRONMENT
from tests.daemon.run_samples import graph, report
from tests.daemon.tls_daemon import Remote, TlsDaemon

_WATCHER = """
import json, sys, time
import grpc
from pathlib import Path
from tests.daemon.tls_daemon import Remote

directory, target, fresh = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "fresh"
remote = Remote(directory, target)
remote.status()
print("ready", flush=True)
import threading
stopped = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
took, failed = [], 0
while not stopped.wait(0.02):
    began = time.monotonic()
    try:
        if fresh:
            remote.channel.close()
            remote = Remote(directory, target)
        remote.status()
    except grpc.RpcError as error:
        failed += 1
        sys.stderr.write(f"{error.code()}: {error.details()}\\n")
    took.append(time.monotonic() - began)
print(json.dumps([took, failed]))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noticed:
    """What happened to the daemon, and to another client's `GetStatus`, during a flood."""

    flood: str
    seconds: float
    attempts: int
    rss_mib: float
    """The highest resident memory of the daemon's process."""
    calls: int
    failed: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    environments_kib: float
    """The size of all environments on the daemon's disk at the end."""

    def as_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Scene:
    """A daemon, and the keys of a reader and of a trainer."""

    daemon: TlsDaemon
    reader: Path
    trainer: Path

    def run(self, flood: str, seconds: float, *, per_s: float = math.inf) -> Noticed:
        """Play a flood of `per_s` attempts a second at most, and watch the daemon; those named `quiet` do nothing."""
        attempt, fresh = FLOODS[flood]
        process = psutil.Process(self.daemon.process.pid)
        peak, attempts = 0, 0
        with self._watching(fresh=fresh) as watcher, contextlib.closing(attempt(self)) as attempted:
            began = time.monotonic()
            while time.monotonic() < began + seconds:
                attempts += next(attempted)
                peak = max(peak, process.memory_info().rss)
                time.sleep(max(0.0, began + attempts / per_s - time.monotonic()))
            assert watcher.stdin is not None
            watcher.stdin.close()
            assert watcher.stdout is not None
            took, failed = json.loads(watcher.stdout.read())
        took.sort()
        kept = self.daemon.directory / "store" / "environments"
        return Noticed(
            flood=flood,
            seconds=seconds,
            attempts=attempts,
            rss_mib=peak / 2**20,
            calls=len(took),
            failed=failed,
            p50_ms=1000 * took[len(took) // 2],
            p90_ms=1000 * took[int(len(took) * 0.9)],
            p99_ms=1000 * took[int(len(took) * 0.99)],
            environments_kib=sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) / 1024,
        )

    @contextlib.contextmanager
    def _watching(self, *, fresh: bool) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [sys.executable, "-c", _WATCHER, str(self.trainer), self.daemon.tls_address, "fresh" if fresh else "one"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        ) as watcher:
            assert watcher.stdout is not None
            try:
                assert watcher.stdout.readline() == "ready\n"
                yield watcher
            finally:
                watcher.kill()


@contextlib.contextmanager
def flooded(directory: Path, *, open_files: int = 256) -> Iterator[Scene]:
    """Start a daemon with a small soft limit of open files, as many shells set it."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    daemon = TlsDaemon(directory, daemon={"page_port": 0}, pool={"max_workers": 1})
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, limits[1]))
    try:
        daemon.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    try:
        daemon.handshake()
        yield Scene(daemon, daemon.made("reader", role="reader"), daemon.made("trainer"))
    finally:
        daemon.__exit__()


Attempts = Iterator[int]


def _quiet(_scene: Scene) -> Attempts:
    while True:
        time.sleep(0.1)
        yield 0


def _lists(scene: Scene) -> Attempts:
    """Send graphs of nothing but lists: the worker refuses them, and then many explanations are asked for at once."""
    yield from _explained(scene, [b"\x90" * (3 << 20), b"\xdd\x00\x2f\xff\xfb" + b"\x90" * ((3 << 20) - 5)])


def _heavy(scene: Scene) -> Attempts:
    """Send a graph of the right form that takes as much memory as a readable one can."""
    fields = unpack(graph(), max_bytes=1 << 20, what="graph")
    [relu] = [node for node in fields["modules"][0][4] if "torch.relu" in node]
    place = next(at for at, item in enumerate(relu) if item == ["t", ["n", 0]])
    relu[place] = ["t", *(["n", 0] for _ in range(140_000))]
    heavy = pack(fields)
    yield from _explained(scene, [heavy, heavy.replace(b"L_x_", b"L_y_")])


def _explained(scene: Scene, graphs: list[bytes]) -> Attempts:
    remote = Remote(scene.reader, scene.daemon.tls_address)
    remote.handshake()
    runs = runs_pb2_grpc.RunServiceStub(remote.channel)
    run = f"{time.time_ns() % 2**62 * 16:032x}"
    told = []
    for number, data in enumerate(graphs):
        key = f"refuse-{number}-{time.monotonic_ns()}"
        request = pb.CompileGraphRequest(environment_id=ENVIRONMENT, key=key, graph=pb.Graph(data=data))
        list(remote.compile_service.CompileGraph(request, **remote.options()))
        told.append(report(number, key, "COMPILED_HERE", spec=data, reason="unsupported"))
    runs.ReportRun(
        runs_pb2.ReportRunRequest(run=run, program="p", pid=7, environment_id=ENVIRONMENT, graphs=told),
        **remote.options(),
    )
    manifests = [
        pb.PublishArtifactRequest(environment_id=ENVIRONMENT, key="k", manifest=data[: 2 << 20]) for data in graphs
    ]
    trainer = Remote(scene.trainer, scene.daemon.tls_address)
    trainer.handshake()

    def ask(number: int) -> int:
        with contextlib.suppress(grpc.RpcError):
            if number % 4 == 0:
                trainer.compile_service.PublishArtifact(manifests[number // 4 % len(manifests)], **trainer.options())
            else:
                runs.ExplainRun(runs_pb2.ExplainRunRequest(run=run), **remote.options())
        return 1

    yield from _in_parallel(ask, 8)
    remote.channel.close()


def _environments(scene: Scene) -> Attempts:
    """Make handshakes that each name another environment, some as large as allowed and some larger."""
    remote = Remote(scene.reader, scene.daemon.tls_address)
    names = ("python", "torch", "cpu_flags", "compiler", "libc", "gpu", "driver", "toolkit")

    def ask(number: int) -> int:
        size = (1000, 2000, 8000)[number % 3]
        fields = {name: f"{number}-{name}".ljust(size, "x") for name in names}
        if number % 7 == 0:
            fields |= {f"field {number} {at}": "y" * 8000 for at in range(50)}
        request = pb.HandshakeRequest(protocol_version=PROTOCOL_VERSION, environment=fields)
        with contextlib.suppress(grpc.RpcError):
            remote.compile_service.Handshake(request, **remote.options())
        return 1

    yield from _in_parallel(ask, 4)
    remote.channel.close()


def _in_parallel(ask: Callable[[int], int], threads: int) -> Attempts:
    numbers = itertools.count()
    stopped = threading.Event()
    with ThreadPoolExecutor(threads) as pool:
        try:
            going = {pool.submit(ask, next(numbers)) for _ in range(threads)}
            while True:
                time.sleep(0.02)
                done = {one for one in going if one.done()}
                yield len(done)
                going = (going - done) | {pool.submit(ask, next(numbers)) for _ in done}
        finally:
            stopped.set()


_HEAD = b"\x16\x03\x01\x02\x00"
"""The head of a TLS record that never follows."""
_HALF_A_GREETING = _HEAD + b"\x01\x00\x01\xfc\x03\x03" + b"x" * 90


def _silent(scene: Scene, address: str = "127.0.0.1", said: tuple[bytes, ...] = (b"", _HEAD)) -> Attempts:
    """Open connections that say nothing, or begin a TLS handshake and stop; all are new and come from one address.

    The connections send the values of `said` in turn.
    """
    port = scene.daemon.port
    held: list[socket.socket] = []
    try:
        for number in itertools.count():
            with contextlib.suppress(OSError):
                connection = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(address, 0))
                held.append(connection)
                connection.sendall(said[number % len(said)])
            if len(held) > 3000:
                held.pop(0).close()
            yield 1
    finally:
        for connection in held:
            connection.close()


FLOODS: dict[str, tuple[Callable[[Scene], Attempts], bool]] = {
    "quiet": (_quiet, False),
    "lists": (_lists, False),
    "heavy": (_heavy, False),
    "environments": (_environments, False),
    "silence": (_silent, False),
    "quiet, new connections": (_quiet, True),
    "silence of another address": (functools.partial(_silent, address="127.0.0.9"), True),
    "silence of the same address": (_silent, True),
    "half a greeting": (functools.partial(_silent, said=(_HALF_A_GREETING,)), True),
}
"""Each flood, and whether the other client opens a new connection for each call."""
