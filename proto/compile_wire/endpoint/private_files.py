"""Files of one user alone: read only where nobody else can have written or read them, written whole or not at all.

This is the one reading of tokens, secrets, keys and notes, for trainers, for operators' commands and for the daemon. It
has the strictest checks that any of them needs: the file is opened without following a link and without waiting for a
pipe's other end, must be a plain file of this user without rights for others, and is looked at through the very
descriptor that is read.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from pathlib import Path

from compile_wire.errors import NotAFileError, UnsafeDirectoryError, UnsafeFileError, UnusableFileError

TOKEN_NAME = "token"  # noqa: S105  # the file's name, not a token
SECRET_NAME = "secret"  # noqa: S105  # the file's name, not a secret
DIGESTS_NAME = "digests.json"
"""What trainers remember of torch's and Triton's sources; made again where it is gone."""

MAX_FILE_BYTES = 64 * 1024
"""Of a token, a key or a note; a chain of certificates has a few KiB."""

_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----\n?", re.DOTALL)


def read_private(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return the bytes of a file that is this user's alone.

    Raises `OSError` where it cannot be opened, `UnsafeError` where others could have written or read it, and
    `UnusableFileError` where it is longer than `max_bytes`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise NotAFileError(f"{path} is not a plain file", path)
        if flaw := _flaw(status, path, "file"):
            raise UnsafeFileError(flaw, path)
        data = bytearray()
        while len(data) <= max_bytes and (piece := os.read(descriptor, max_bytes + 1 - len(data))):
            data += piece
    finally:
        os.close(descriptor)
    if len(data) > max_bytes:
        raise UnusableFileError(f"{path} is longer than {max_bytes} bytes", path)
    return bytes(data)


def write_private(path: Path, data: bytes) -> None:
    """Write a 0600 file, whole or not at all; raise `OSError` where that cannot be done."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def check_private_directory(directory: Path) -> None:
    """Raise `UnsafeDirectoryError` unless the directory is this user's alone, `OSError` where there is none."""
    if flaw := _flaw(directory.stat(), directory, "directory"):
        raise UnsafeDirectoryError(flaw, directory)


def split_pem(data: bytes) -> tuple[bytes, bytes]:
    """Return the private key and the certificates of a PEM file; empty where there is none.

    Of several keys the first is the key.
    """
    blocks = [(match[1], match[0].rstrip() + b"\n") for match in _PEM_BLOCK.finditer(data)]
    keys = [block for label, block in blocks if label.endswith(b"PRIVATE KEY")]
    return b"".join(keys[:1]), b"".join(block for label, block in blocks if label == b"CERTIFICATE")


def _flaw(status: os.stat_result, path: Path, what: str) -> str:
    if status.st_uid != os.geteuid():
        return f"the {what} {path} belongs to user {status.st_uid}, not to user {os.geteuid()}"
    if status.st_mode & 0o077:
        mode, right = stat.S_IMODE(status.st_mode), "700" if what == "directory" else "600"
        return f"others can reach the {what} {path} (mode {mode:o}); `chmod {right} {path}` mends it"
    return ""
