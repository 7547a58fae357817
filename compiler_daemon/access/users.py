"""Who uses a daemon although no call says so: a trainer that trains for hours has a shared lock on a file meanwhile.

The kernel lets go of the lock when the last process that has inherited it ends, however it ends. Only a daemon that
ends by itself makes the file: there is nothing to lock elsewhere.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from compile_wire.endpoint.address import USERS_NAME


class Users:
    """Sees, in the daemon, whether anybody has the lock. A context manager."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / USERS_NAME

    def __enter__(self) -> Self:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def are_there(self) -> bool:
        """Whether any process has the lock now."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return False
