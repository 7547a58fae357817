"""What opens the daemon, and the secret that its signatures are checked with.

All are files of one directory: the daemon's own, or one that `compiler-daemon keys client` made for a client elsewhere.
They are read only from a directory and from files that belong to this user and that nobody else can read or write:
whoever can write the secret, or the authority's certificate, can make this process run code.

    secret                     of both
    token                      of the daemon's own directory, and of a client that shows a token
    ca.pem, client.pem         of a client elsewhere: the authority; key and certificate, if it shows a certificate
    keys/ca.pem                of the daemon's own directory, where it has keys for TLS
"""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from compile_wire.errors import CredentialsError, UnsafeError
from compile_wire.signature import SECRET_BYTES

_MAX_TOKEN_BYTES = 512
_MAX_PEM_BYTES = 64 * 1024
_AUTHORITIES = ("ca.pem", "keys/ca.pem")
_PEM_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TlsKeys:
    """Holds what TLS needs at this end, PEM as gRPC takes it."""

    authority: bytes
    certificate: bytes | None = None
    """None where this client shows a token."""
    key: bytes | None = field(default=None, repr=False)
    authority_path: Path = Path()
    certificate_path: Path | None = None
    """Both paths only to explain what went wrong."""
    expires: float = 0.0
    """When the certificate ends, in seconds since the epoch, as its maker wrote down; 0 where it is not known."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Holds the token to talk to the daemon and the secret to believe it.

    Neither shows in a repr, so neither reaches a log.
    """

    token: str = field(repr=False)
    secret: bytes = field(repr=False)
    tls: TlsKeys | None = None
    """Where TLS is to be used."""


def has_tls_keys(directory: Path) -> bool:
    """Whether the directory can tell the daemon from a stranger over TCP: then nothing but TLS is spoken."""
    return any((directory / name).exists() for name in _AUTHORITIES)


def read_credentials(directory: Path, *, tls: bool = False) -> Credentials:
    """Return what is in the directory; raise `UnsafeError` or `CredentialsError` where it is unusable."""
    try:
        _check_private(directory.stat(), directory, "directory")
    except OSError as error:
        raise CredentialsError(f"the daemon's directory {directory} cannot be read ({error.strerror})") from error
    keys = _read_tls(directory) if tls else None
    # A certificate takes the place of the token; with both, the daemon goes by the certificate.
    needs_token = keys is None or keys.certificate is None or (directory / "token").exists()
    token = _read_private(directory / "token", _MAX_TOKEN_BYTES).strip() if needs_token else b""
    secret = _read_private(directory / "secret", SECRET_BYTES)
    if needs_token and (not token.isascii() or not token.decode("latin-1").isprintable() or not token):
        raise CredentialsError(f"{directory / 'token'} holds no token")
    if len(secret) != SECRET_BYTES:
        raise CredentialsError(f"{directory / 'secret'} has {len(secret)} bytes, not {SECRET_BYTES}")
    return Credentials(token.decode(), secret, keys)


def _read_tls(directory: Path) -> TlsKeys:
    path = next((directory / name for name in _AUTHORITIES if (directory / name).exists()), directory / _AUTHORITIES[0])
    authority = _read_private(path, _MAX_PEM_BYTES)
    own = directory / "client.pem"
    if not own.exists():
        return TlsKeys(authority, authority_path=path)
    blocks = [(match[1], match[0]) for match in _PEM_BLOCK.finditer(_read_private(own, _MAX_PEM_BYTES))]
    key = b"".join(block for label, block in blocks if label.endswith(b"PRIVATE KEY"))
    certificate = b"".join(block for label, block in blocks if label == b"CERTIFICATE")
    if not key or not certificate:
        raise CredentialsError(f"{own} must hold a certificate and its private key")
    return TlsKeys(authority, certificate, key, path, own, _expires(directory))


def _expires(directory: Path) -> float:
    try:
        expires = json.loads((directory / "client.json").read_bytes()[:_MAX_PEM_BYTES])["expires"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return 0.0
    return float(expires) if isinstance(expires, int | float) else 0.0


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
