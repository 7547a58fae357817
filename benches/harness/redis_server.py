"""A redis-server of a bench's own, on a Unix socket, that keeps nothing."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benches.harness.measure import BenchError
from benches.harness.processes import start_child

_READY_S = 20.0


@dataclass(frozen=True, slots=True)
class RedisServer:
    """One that runs."""

    path: Path
    """Its socket."""
    pid: int


@contextlib.contextmanager
def redis_served(folder: Path) -> Iterator[Path]:
    """Run one while the block lasts; its socket, in `folder`. Raises `BenchError` where there is none to run."""
    with redis_running(folder) as server:
        yield server.path


@contextlib.contextmanager
def redis_running(folder: Path, *options: str, launcher: Sequence[str] = ()) -> Iterator[RedisServer]:
    """Run one with more options while the block lasts, by way of another command if need be.

    Raises `BenchError` where there is none to run.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise BenchError("this needs redis-server: install it (Debian's redis-server), or leave its rows out")
    path = folder / "redis.sock"
    keeps_nothing = ["--save", "", "--appendonly", "no", "--dir", str(folder), "--bind", "127.0.0.1"]
    command = [*launcher, program, "--port", "0", "--unixsocket", str(path), *keeps_nothing, *options]
    log = folder / "redis.log"
    with log.open("wb") as file:
        process = start_child(command, stdout=file)
    try:
        _wait_for(path, process, log)
        yield RedisServer(path, process.pid)
    finally:
        process.kill()  # one that was stopped would not hear anything else, and nothing of it is kept
        process.wait()


def _wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return
        time.sleep(0.05)
    raise BenchError(f"redis-server did not come up: {log.read_text(errors='replace')[-500:]}")
