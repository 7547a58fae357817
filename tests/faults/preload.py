"""A library that moves a process's wall clock, or makes its allocations fail, at the instant that a test chooses."""

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

_CONTROL = struct.Struct("=qqq")  # the layout of `struct control` in preload.c


@functools.cache
def library() -> Path:
    """Build the library, once in each process."""
    folder = tempfile.mkdtemp(prefix="faults-preload-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    built = Path(folder) / "preload.so"
    source = Path(__file__).with_name("preload.c")
    subprocess.run(["g++", "-x", "c", "-O1", "-shared", "-fPIC", "-o", built, source], check=True, timeout=120)
    return built


class Preload:
    """The switch of the library, which is active in processes that start with `environment`."""

    def __init__(self, control: Path) -> None:
        control.write_bytes(bytes(_CONTROL.size))
        with control.open("r+b") as file:
            self._mapped = mmap.mmap(file.fileno(), _CONTROL.size)
        self.environment = {"LD_PRELOAD": str(library()), "FAULTS_CONTROL": str(control)}

    def move_clock(self, seconds: int) -> None:
        """Move the wall clock of all these processes by so many seconds from now on."""
        self._mapped[: _CONTROL.size] = _CONTROL.pack(seconds, 0, 0)

    def exhaust_memory(self, pid: int, largest_bytes: int = 4096) -> None:
        """Make every allocation of process `pid` above so many bytes fail from now on."""
        self._mapped[: _CONTROL.size] = _CONTROL.pack(0, largest_bytes, pid)

    def clear(self) -> None:
        """Restore clock and memory."""
        self._mapped[: _CONTROL.size] = bytes(_CONTROL.size)

    def close(self) -> None:
        """Release the switch once the processes have ended."""
        self._mapped.close()
        os.unlink(self.environment["FAULTS_CONTROL"])
