"""Being there for a daemon that ends by itself: whoever uses it has a shared lock on a file of its directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from compile_wire.endpoint.address import USERS_NAME

_TRIES, _MOMENT_S = 20, 0.005


def be_present(directory: Path, *, inherited: bool = False) -> bool:
    """Take the lock for the rest of this process's life; with `inherited`, also for what it becomes or starts.

    Returns False where the daemon of the directory has made no such file: it does not end by itself. Never raises.
    """
    with contextlib.suppress(OSError):
        descriptor = os.open(directory / USERS_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _take(descriptor)
            os.set_inheritable(descriptor, inherited)
        except OSError:
            os.close(descriptor)
            raise
        return True
    return False


def _take(descriptor: int) -> None:
    """Take the lock; the daemon itself has it for a moment, when it looks. Raises `OSError` where that lasts."""
    for _ in range(_TRIES):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_MOMENT_S)
    raise BlockingIOError("the daemon holds the lock")
