"""A redis-server of a bench's own, on a Unix socket, that keeps nothing."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benches.harness.measure import BenchError
from benches.harness.processes import start_child

_READY_S = 20.0
_STOP_S = 30.0


@contextlib.contextmanager
def redis_served(folder: Path) -> Iterator[Path]:
    """Run one while the block lasts; its socket, in `folder`. Raises `BenchError` where there is none to run."""
    program = shutil.which("redis-server")
    if program is None:
        raise BenchError("this needs redis-server: install it (Debian's redis-server), or leave its rows out")
    path = folder / "redis.sock"
    process = start_child(
        [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_for(path, process)
        yield path
    finally:
        process.terminate()
        process.wait(_STOP_S)


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
            return
        time.sleep(0.05)
    raise BenchError("redis-server did not come up")
