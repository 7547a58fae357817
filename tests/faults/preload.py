"""A library that moves a process's wall clock, or lets its allocations fail, at the instant a test says so."""

from __future__ import annotations

import atexit
import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

_CONTROL = struct.Struct("=qqq")  # as `struct control` of preload.c


@functools.cache
def library() -> Path:
    """Build the library, once a process."""
    folder = tempfile.mkdtemp(prefix="faults-preload-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    built = Path(folder) / "preload.so"
    source = Path(__file__).with_name("preload.c")
    subprocess.run(["g++", "-x", "c", "-O1", "-shared", "-fPIC", "-o", built, source], check=True, timeout=120)
    return built


class Preload:
    """The library in the processes that are started with `environment`, and its switch."""

    def __init__(self, control: Path) -> None:
        control.write_bytes(bytes(_CONTROL.size))
        with control.open("r+b") as file:
            self._mapped = mmap.mmap(file.fileno(), _CONTROL.size)
        self.environment = {"LD_PRELOAD": str(library()), "FAULTS_CONTROL": str(control)}

    def move_clock(self, seconds: int) -> None:
        """From now on the wall clock of all these processes shows so much more, or less."""
        self._mapped[: _CONTROL.size] = _CONTROL.pack(seconds, 0, 0)

    def exhaust_memory(self, pid: int, largest_bytes: int = 4096) -> None:
        """From now on every allocation of process `pid` above so many bytes fails."""
        self._mapped[: _CONTROL.size] = _CONTROL.pack(0, largest_bytes, pid)

    def clear(self) -> None:
        """Clock and memory are as they were."""
        self._mapped[: _CONTROL.size] = bytes(_CONTROL.size)

    def close(self) -> None:
        """Let go of the switch; the processes have ended."""
        self._mapped.close()
        os.unlink(self.environment["FAULTS_CONTROL"])
