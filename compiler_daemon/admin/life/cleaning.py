"""Removing what a daemon has written into its directory, and nothing else, while no daemon can start there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from compile_wire.endpoint.address import NOTE_NAME, SOCKET_NAME, USERS_NAME
from compile_wire.endpoint.credentials import is_clients
from compile_wire.endpoint.private_files import DIGESTS_NAME, SECRET_NAME, TOKEN_NAME
from compiler_daemon.access.directory import LOCK_NAME, DirectoryLock
from compiler_daemon.errors import UsageError

_WRITTEN = (
    *("store", "scratch", "headers", "log", "warm"),
    *("runs.sqlite3", "runs.sqlite3-wal", "runs.sqlite3-shm"),
    *(NOTE_NAME, SOCKET_NAME, USERS_NAME, TOKEN_NAME, SECRET_NAME, DIGESTS_NAME, "page.html", "figures-since.json"),
)
_KEYS = ("keys", "access.json", ".keys.lock")


@dataclass(frozen=True, kw_only=True, slots=True)
class Written:
    """Describes a file or folder that a daemon has written."""

    path: Path
    bytes: int


def written_by_daemon(directory: Path, *, keys: bool) -> list[Written]:
    """Return what of a directory is a daemon's; `keys` adds what other machines know it by.

    Raises `UsageError` where the directory is a client's: it holds keys that another machine has made.
    """
    if is_clients(directory):
        raise UsageError(f"{directory} is a client's of a daemon elsewhere: remove it by hand if nobody needs its keys")
    names = _WRITTEN + (_KEYS if keys else ())
    paths = [path for name in names if (path := directory / name).is_symlink() or path.exists()]
    return [Written(path=path, bytes=_size(path)) for path in paths]


def clear(directory: Path, found: Sequence[Written]) -> None:
    """Remove what was found, and the directory where nothing else is in it.

    Raises `RunningError` where a daemon has started meanwhile.
    """
    lock = DirectoryLock(directory)
    lock.acquire()
    try:
        for one in found:
            if one.path.is_dir() and not one.path.is_symlink():
                shutil.rmtree(one.path)
            else:
                one.path.unlink(missing_ok=True)
        if {path.name for path in directory.iterdir()} <= {LOCK_NAME}:
            (directory / LOCK_NAME).unlink()
            with suppress(OSError):  # somebody has put something into it just now
                directory.rmdir()
    finally:
        lock.release()


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(_size(inner) for inner in path.iterdir())
