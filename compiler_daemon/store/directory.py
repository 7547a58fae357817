"""The store's directory: safe to use, used by one daemon, and still the one that was opened.

Everything under the root is found through digests or fixed names; no text of a caller ever becomes part of a path.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compiler_daemon.store.errors import (
    DiskFullError,
    StoreClosedError,
    StoreDamagedError,
    StoreError,
    StoreLockedError,
    StoreReadOnlyError,
    StoreUnsafeError,
    StoreVanishedError,
)

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_WRITING = {errno.EROFS, errno.EACCES, errno.EPERM}
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
_MAX_HOLDER_BYTES = 1024
"""Of the lock file's text; another program may have written to it."""


class Directory:
    """Holds the store's root directory, checked and locked. Safe to call from any thread."""

    def __init__(self, root: Path, lock: int) -> None:
        self.root = root
        self._lock: int | None = lock
        self._lock_path = str(root / "lock")  # looked at several times a lookup

    @classmethod
    def open(cls, root: Path, *, address: str) -> Directory:
        """Make or validate `root` and lock it.

        Raises `StoreUnsafeError` where others own the directory or may write to it, `StoreLockedError` where another
        daemon uses it. The kernel frees the lock when its holder dies, however it dies.
        """
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            root = root.resolve(strict=True)
            _check_safe(root)
            return cls(root, _lock(root, address))
        except FileExistsError as error:
            raise StoreUnsafeError(f"{root} is not a directory: give the store a directory of its own") from error
        except OSError as error:
            raise _translated(error, root, "open the store") from error

    def close(self) -> None:
        """Free the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_alive(self) -> None:
        """Raise `StoreVanishedError` where the path no longer leads to the directory that was locked."""
        if self._lock is None:
            raise StoreClosedError("the store is closed")
        try:
            there = os.stat(self._lock_path)
        except OSError as error:
            raise StoreVanishedError(self.root) from error
        if not os.path.samestat(there, os.fstat(self._lock)):
            raise StoreVanishedError(self.root)

    @contextmanager
    def failing_as(self, doing: str) -> Iterator[None]:
        """Turn what disk and SQLite raise into this room's errors; `doing` completes "could not ...".

        Checks first that the directory is still ours: another daemon's store may be there by now.
        """
        self.check_alive()
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise self.translated(error, doing) from error

    def translated(self, error: OSError | sqlite3.Error, doing: str) -> StoreError:
        """Return what an error of disk or SQLite means here."""
        try:
            self.check_alive()
        except StoreError as gone:
            return gone
        if isinstance(error, OSError):
            return _translated(error, self.root, doing)
        return _translated_index(error, self.root, doing)


def _translated(error: OSError, root: Path, doing: str) -> StoreError:
    what = f"could not {doing} in {root}: {error.strerror or error}"
    if error.errno in _NO_ROOM:
        return DiskFullError(f"{what}; free some room, or lower the store's limit")
    if error.errno in _NO_WRITING:
        return StoreReadOnlyError(f"{what}; make the directory writable for uid {os.geteuid()}, or use another one")
    if error.errno in _GONE:
        return StoreError(f"{what}; a folder of the store is gone, restart the daemon to set it up again")
    return StoreError(f"{what}; check the disk")


def _translated_index(error: sqlite3.Error, root: Path, doing: str) -> StoreError:
    what = f"could not {doing} in {root}: {error}"
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    match code & 0xFF:  # the low byte is the kind, the rest a detail
        case sqlite3.SQLITE_FULL:
            return DiskFullError(f"{what}; free some room, or lower the store's limit")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreReadOnlyError(f"{what}; make the index writable for uid {os.geteuid()}")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreDamagedError(f"{what}; restart the daemon, it rebuilds the index and loses no artifact")
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreError(f"{what}; another program holds index.sqlite3 open, close it")
    return StoreError(f"{what}; check the disk")


def _check_safe(root: Path) -> None:
    status = root.stat()
    if status.st_uid != os.geteuid():
        raise StoreUnsafeError(
            f"{root} belongs to uid {status.st_uid}, not to uid {os.geteuid()}: its owner could plant code. "
            "Give the store a directory of your own"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreUnsafeError(
            f"{root} can be written by others (mode {stat.S_IMODE(status.st_mode):04o}), who could have planted code. "
            f"Empty it if you do not trust them, then: chmod 700 {root}"
        )
    if stat.S_IMODE(status.st_mode) != 0o700:
        # Nobody else could have written here, so closing the door after the fact is enough.
        root.chmod(0o700)


def _lock(root: Path, address: str) -> int:
    handle = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, _MAX_HOLDER_BYTES, 0).decode(errors="replace").strip()
            raise StoreLockedError(root, holder) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"pid {os.getpid()} {address}".strip().encode()[:_MAX_HOLDER_BYTES] + b"\n", 0)
    except BaseException:
        os.close(handle)
        raise
    return handle
