"""What makes a directory a daemon's: its permissions, token, signing secret, and the note of who serves it.

Guarantees: the directory is entered only if it is ours alone. Token and secret are made once, complete or not at all,
readable by their owner only. One process at a time holds the lock; the kernel releases it however that process ends.
Neither token nor secret is ever logged.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import stat
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from compile_wire.endpoint.address import CARD_NAME, NOTE_NAME, SOCKET_NAME, USERS_NAME
from compile_wire.endpoint.private_files import DIGESTS_NAME, SECRET_NAME, TOKEN_NAME
from compile_wire.signature import SECRET_BYTES
from compiler_daemon.endpoint import read_note, read_secret, read_token, write_private
from compiler_daemon.errors import DirectoryError, RunningError

LOCK_NAME = "daemon.lock"
_ASKING_S = 0.5
"""Who only asks, or looks into the store, has the lock for a moment; a daemon that starts just then waits."""

_MARKS = (TOKEN_NAME, SECRET_NAME, LOCK_NAME, "keys", CARD_NAME)
"""A directory with one of these is a daemon's, or a client's, whatever else somebody has put there."""
_OURS = frozenset(
    {
        *_MARKS,
        SOCKET_NAME,
        USERS_NAME,
        DIGESTS_NAME,
        *f"{NOTE_NAME} access.json .keys.lock store scratch headers log warm".split(),
    }
)
_NOT_OURS_BUT_HARMLESS = frozenset({"lost+found"})  # in every file system of its own, as volumes are


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Holds the token that clients show and the secret that artifacts are signed with."""

    token: str = field(repr=False)
    secret: bytes = field(repr=False)

    @classmethod
    def open(cls, directory: Path) -> Identity:
        """Read both from a prepared directory; make what is not there yet."""
        _make(directory / TOKEN_NAME, secrets.token_hex(32).encode())
        _make(directory / SECRET_NAME, secrets.token_bytes(SECRET_BYTES))
        try:
            return cls(token=read_token(directory), secret=read_secret(directory))
        except OSError as error:
            raise DirectoryError(f"{error.filename} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class DaemonNote:
    """Says which process serves a directory and where, so that `status`, `stop` and clients find the daemon."""

    address: str
    pid: int
    started: float
    """Seconds since the epoch."""

    def write(self, directory: Path) -> None:
        """Replace the directory's note."""
        write_private(directory / NOTE_NAME, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, directory: Path) -> DaemonNote | None:
        """Return the directory's note; None where there is none that can be read."""
        fields: dict[str, Any] = read_note(directory / NOTE_NAME)
        try:
            return cls(address=str(fields["address"]), pid=int(fields["pid"]), started=float(fields["started"]))
        except (ValueError, KeyError, TypeError):
            return None

    @staticmethod
    def remove(directory: Path) -> None:
        """Take the note away; no note is fine."""
        (directory / NOTE_NAME).unlink(missing_ok=True)


def prepare_directory(directory: Path) -> None:
    """Make the directory if need be; raise `DirectoryError` unless it is ours alone, and was empty or a daemon's."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
    except OSError as error:
        why = "it is no directory" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
        raise DirectoryError(f"{directory} cannot be used: {why}; choose another with --dir") from error
    if status.st_uid != os.geteuid():
        raise DirectoryError(f"{directory} belongs to user {status.st_uid}: choose another with --dir")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise DirectoryError(f"others may write to {directory}: look at what is in it, then `chmod 700 {directory}`")
    if strange := _strange(directory):
        raise DirectoryError(
            f"{directory} is no daemon's directory, and not empty (there is {strange}): name an empty or a new one "
            "with --dir"
        )
    if status.st_mode & 0o077:
        # Readable by others is repaired: nothing can have been put in, and the secrets inside are 0600 themselves.
        directory.chmod(0o700)


def _strange(directory: Path) -> str:
    """Return a name that no daemon has made, where none has ever served; empty where there is nothing to mind."""
    names = sorted(os.listdir(directory))
    if any(name in _MARKS for name in names):
        return ""
    return next((name for name in names if name not in _OURS | _NOT_OURS_BUT_HARMLESS), "")


def forget_digests(directory: Path) -> None:
    """Have trainers read torch's and Triton's sources again: a worker has found others than its client has said."""
    with contextlib.suppress(OSError):
        (directory / DIGESTS_NAME).unlink(missing_ok=True)


class DirectoryLock:
    """Lets one process at a time serve a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / LOCK_NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; raise `RunningError`, naming the holder, where another process has it."""
        descriptor = self._open()
        try:
            _take(descriptor)
        except OSError as error:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            note = DaemonNote.read(self._directory)
            where = f" at {note.address}" if note else ""
            raise RunningError(
                f"process {holder or 'of unknown number'} serves {self._directory} already{where}: "
                "stop it with `compiler-daemon stop`, or choose another directory with --dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes hold two different ones."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def is_in_place(self) -> bool:
        """Whether the lock that this object holds is still the one of the directory: its file was not removed."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.lstat())
        except OSError:
            return False

    def holder(self) -> int | None:
        """Return the process that holds the lock; None where nobody does, or the kernel shows no such process here."""
        if not self.is_held():
            return None
        try:
            number = int(self._path.read_bytes()[:32])
            files = [f"/proc/{number}/fd/{one}" for one in os.listdir(f"/proc/{number}/fd")]
        except (OSError, ValueError):
            return None
        # A number alone could be that of a stranger: the holder may be in another container.
        return number if any(self._is_lock(file) for file in files) else None

    def is_held(self) -> bool:
        """Whether any process holds the lock now."""
        if not self._path.exists():
            return False
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _is_lock(self, file: str) -> bool:
        try:
            return os.path.samefile(file, self._path)
        except OSError:
            return False

    def _open(self) -> int:
        return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _take(descriptor: int) -> None:
    """Take a lock; raise `OSError` where another has it, and not only asked for a moment whether somebody has."""
    end = time.monotonic() + _ASKING_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= end:
                raise
            time.sleep(_ASKING_S / 20)
        else:
            return


def _make(path: Path, fresh: bytes) -> None:
    if not path.exists():
        write_private(path, fresh)
