"""One change to the keys of a directory at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from compiler_daemon.errors import KeysError

_LOCK_NAME = ".keys.lock"


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Wait for those who change the keys of the directory, and keep others waiting; raise `KeysError` where it is none.

    The kernel lets go of the lock however the process ends.
    """
    try:
        descriptor = os.open(directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise KeysError(
            f"{directory} cannot be used ({error.strerror}): name a daemon's directory with --dir"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
