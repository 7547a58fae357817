"""The logs of a directory, for people: the daemon's own, where it serves in the background, and its workers'."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from compile_wire.plain import plain
from compiler_daemon.errors import DaemonError

_LOOK_S = 0.2


def log_named(directory: Path, name: str) -> Path:
    """Return the file of a log; raise `DaemonError`, with the names that there are, where it is none."""
    folder = directory / "log"
    names = sorted(path.stem for path in folder.glob("*.log")) if folder.is_dir() else []
    if name in names:
        return folder / f"{name}.log"
    if name == "daemon":
        raise DaemonError(
            f"no daemon of {directory} has served in the background: one in the foreground writes to its own terminal, "
            "or to the journal of what has started it"
        )
    there = f"there are {', '.join(names)}" if names else "there are none yet"
    raise DaemonError(f"no log of {directory} is called {name!r}: {there}")


class Log:
    """Reads a log: its last lines, then whatever comes, with nothing between the two left out. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, errors="replace")  # noqa: SIM115  # closed by `__exit__`

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def last_lines(self, count: int) -> list[str]:
        """Return the last lines, all of them where `count` is 0, without what steers a terminal."""
        return [plain(line.rstrip("\n")) for line in deque(self._file, maxlen=count or None)]

    def follow(self) -> Iterator[str]:
        """Yield the lines that come, for ever; a log that is put aside is followed by the new one of its name."""
        rest = ""
        while True:
            if read := self._file.readline():
                rest += read
                if rest.endswith("\n"):
                    yield plain(rest.rstrip("\n"))
                    rest = ""
                continue
            if self._is_another():
                self._file.close()
                self._file = open(self._path, errors="replace")  # noqa: SIM115  # as above
                rest = ""
            time.sleep(_LOOK_S)

    def _is_another(self) -> bool:
        try:
            there = self._path.stat()
        except OSError:
            return False
        here = os.fstat(self._file.fileno())
        return not os.path.samestat(there, here) or there.st_size < self._file.tell()
