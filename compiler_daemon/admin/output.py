"""Where a verb writes a file: only a regular file is replaced, and only by a whole one.

A name that leads elsewhere is followed: behind a symbolic link the file is replaced and the link stays; into a FIFO or
a terminal the bytes are written, once all are there; `-` is stdout.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from compiler_daemon.errors import OutputError, UsageError

STDOUT = Path("-")


class Output:
    """Collects a file's bytes in `file`, which can be rewound; `finish` puts them in their place.

    A context manager: leaving it without `finish` leaves what was there before, and writes nothing into a stream.
    """

    file: IO[bytes]

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scope = ExitStack()
        self._stream: IO[bytes] | None = None
        self._target = path
        self._temporary: Path | None = None

    def __enter__(self) -> Self:
        with ExitStack() as scope:
            try:
                self._stream = self._open_stream(scope)
                self.file = scope.enter_context(tempfile.TemporaryFile() if self._stream else self._beside(scope))
            except OSError as error:
                raise OutputError(f"{self._path} cannot be written: {error.strerror}") from error
            self._scope = scope.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scope.close()

    def finish(self) -> int:
        """Bring the bytes where they belong; return how many they are."""
        self.file.flush()
        size = self.file.seek(0, os.SEEK_END)
        try:
            if self._stream is not None:
                self.file.seek(0)
                shutil.copyfileobj(self.file, self._stream)
                self._stream.flush()
            elif self._temporary is not None:
                os.fsync(self.file.fileno())
                os.replace(self._temporary, self._target)
        except BrokenPipeError as error:
            raise OutputError(f"{self._path}: whoever read it has gone") from error
        except OSError as error:
            raise OutputError(f"{self._path} cannot be written: {error.strerror}") from error
        return size

    def _open_stream(self, scope: ExitStack) -> IO[bytes] | None:
        """Return what to write into where the name is that of no regular file, there or to be."""
        if self._path == STDOUT:
            if sys.stdout.isatty():
                raise UsageError("that is no text for a terminal: name a file, or send stdout into one")
            sys.stdout.flush()
            return sys.stdout.buffer
        try:
            mode = self._path.stat().st_mode
        except FileNotFoundError:
            return None
        if stat.S_ISREG(mode):
            return None
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            return scope.enter_context(open(self._path, "wb"))
        raise OutputError(f"{self._path} is {_KINDS.get(stat.S_IFMT(mode), 'no file')}: name a file, or `-` for stdout")

    def _beside(self, scope: ExitStack) -> IO[bytes]:
        """Make the file that takes the name in the end, in the folder of the file that a link leads to."""
        self._target = Path(os.path.realpath(self._path))
        self._temporary = temporary = self._target.with_name(f".{self._target.name}.{secrets.token_hex(4)}")
        # Not by `tempfile`: who may read the file is for the user's umask to say.
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        scope.callback(_unlink, temporary)
        return open(descriptor, "w+b")


_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFBLK: "a disk", stat.S_IFSOCK: "a socket"}


def _unlink(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
