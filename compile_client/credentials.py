"""The token that opens the daemon, and the secret that its signatures are checked with.

Both are files in the daemon's directory. They are read only from a directory and from files that belong to this user
and that nobody else can read or write: whoever can write the secret can make this process run code.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from compile_client.errors import CredentialsError, UnsafeError
from compile_wire.signature import SECRET_BYTES

_MAX_TOKEN_BYTES = 512


@dataclass(frozen=True, slots=True)
class Credentials:
    """What it takes to talk to the daemon and to believe it. Neither shows in a repr, so neither reaches a log."""

    token: str = field(repr=False)
    secret: bytes = field(repr=False)


def read_credentials(directory: Path) -> Credentials:
    """Return what the daemon left in its directory; raise `UnsafeError` or `CredentialsError` where it is unusable."""
    try:
        _check_private(directory.stat(), directory, "directory")
    except OSError as error:
        raise CredentialsError(f"the daemon's directory {directory} cannot be read ({error.strerror})") from error
    token = _read_private(directory / "token", _MAX_TOKEN_BYTES).strip()
    secret = _read_private(directory / "secret", SECRET_BYTES)
    if not token.isascii() or not token.decode("latin-1").isprintable() or not token:
        raise CredentialsError(f"{directory / 'token'} holds no token")
    if len(secret) != SECRET_BYTES:
        raise CredentialsError(f"{directory / 'secret'} has {len(secret)} bytes, not {SECRET_BYTES}")
    return Credentials(token.decode(), secret)


def _read_private(path: Path, max_bytes: int) -> bytes:
    """Read at most one byte more than `max_bytes`, from the very file that was checked, never through a link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CredentialsError(f"{path} cannot be read ({error.strerror})") from error
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeError(f"{path} is not a plain file")
        _check_private(status, path, "file")
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise CredentialsError(f"{path} is longer than {max_bytes} bytes")
    return data


def _check_private(status: os.stat_result, path: Path, what: str) -> None:
    if status.st_uid != os.geteuid():
        raise UnsafeError(f"the {what} {path} belongs to user {status.st_uid}, not to user {os.geteuid()}")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        right = "700" if stat.S_ISDIR(status.st_mode) else "600"
        raise UnsafeError(f"others can reach the {what} {path} (mode {mode:o}); `chmod {right} {path}` mends it")
