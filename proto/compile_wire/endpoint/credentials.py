"""What opens the daemon, and the secret that its signatures are checked with: for trainers and operators' commands.

All are files of one directory: the daemon's own, or one that `compiler-daemon keys client` made for a client elsewhere.
They are read only from a directory and from files that belong to this user and that nobody else can reach: whoever can
write the secret, or the authority's certificate, can make a process run code.

    secret                     of both
    token                      of the daemon's own directory, and of a client that shows a token
    ca.pem, client.pem         of a client elsewhere: the authority; key and certificate, if it shows a certificate
    client.json                of a client elsewhere: the daemon's address, and when the certificate ends
    keys/ca.pem                of the daemon's own directory, where it has keys for TLS

`OSError` is raised as it is where one that is needed cannot be opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from compile_wire.endpoint.address import CARD_NAME, read_note
from compile_wire.endpoint.private_files import (
    SECRET_NAME,
    TOKEN_NAME,
    check_private_directory,
    read_private,
    split_pem,
)
from compile_wire.errors import UnusableFileError
from compile_wire.signature import SECRET_BYTES

AUTHORITY_NAME = "ca.pem"
CERTIFICATE_NAME = "client.pem"

_AUTHORITIES = (AUTHORITY_NAME, f"keys/{AUTHORITY_NAME}")
_MAX_TOKEN_BYTES = 512


@dataclass(frozen=True, slots=True)
class TlsKeys:
    """Holds what TLS needs at a client's end, PEM as gRPC takes it."""

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
class Keys:
    """Holds what is shown to a daemon; neither token nor key shows in a repr, so neither reaches a log."""

    token: str = field(repr=False)
    """Empty where a certificate takes its place."""
    tls: TlsKeys | None = None
    """Where TLS is to be used."""


@dataclass(frozen=True, slots=True)
class Credentials(Keys):
    """Holds beside the keys the secret that the daemon's signatures are checked with; it does not show either."""

    secret: bytes = field(kw_only=True, repr=False)


def has_tls_keys(directory: Path) -> bool:
    """Whether the directory can tell the daemon from a stranger over TCP: then nothing but TLS is spoken."""
    return any((directory / name).exists() for name in _AUTHORITIES)


def has_keys(directory: Path) -> bool:
    """Whether there is anything to show to a daemon: the directory is a daemon's, or a client's."""
    return any((directory / name).exists() for name in (TOKEN_NAME, CERTIFICATE_NAME))


def is_clients(directory: Path) -> bool:
    """Whether the directory was made for a client elsewhere: no daemon serves it."""
    return (directory / CARD_NAME).exists()


def read_credentials(directory: Path, *, tls: bool = False) -> Credentials:
    """Return keys and secret; raise `UnsafeError` or `UnusableFileError` where one of them must not be used."""
    keys = read_keys(directory, tls=tls)
    return Credentials(keys.token, keys.tls, secret=read_secret(directory))


def read_keys(directory: Path, *, tls: bool = False) -> Keys:
    """Return what is shown to a daemon, with `tls` over TLS: then there must be an authority.

    Raises `UnsafeError` or `UnusableFileError` where it must not be used.
    """
    check_private_directory(directory)
    keys = _read_tls(directory) if tls else None
    # A certificate takes the place of the token; with both, the daemon goes by the certificate.
    needs_token = keys is None or keys.certificate is None or (directory / TOKEN_NAME).exists()
    return Keys(read_token(directory) if needs_token else "", keys)


def read_token(directory: Path) -> str:
    """Return the token of a directory; raise `UnsafeError` or `UnusableFileError` where it must not be used."""
    token = read_private(directory / TOKEN_NAME, _MAX_TOKEN_BYTES).strip()
    if not token or not token.isascii() or not token.decode().isprintable():
        raise UnusableFileError(f"{directory / TOKEN_NAME} holds no token", directory / TOKEN_NAME)
    return token.decode()


def read_secret(directory: Path) -> bytes:
    """Return the signing secret of a directory, with the errors of `read_token`."""
    return read_secret_file(directory / SECRET_NAME)


def read_secret_file(path: Path) -> bytes:
    """Return the signing secret in a file, with the errors of `read_token`."""
    secret = read_private(path)
    if len(secret) != SECRET_BYTES:
        raise UnusableFileError(f"{path} has {len(secret)} bytes, not {SECRET_BYTES}", path)
    return secret


def _read_tls(directory: Path) -> TlsKeys:
    paths = [directory / name for name in _AUTHORITIES]
    path = next((path for path in paths if path.exists()), paths[0])
    authority = read_private(path)
    own = directory / CERTIFICATE_NAME
    if not own.exists():
        return TlsKeys(authority, authority_path=path)
    key, certificate = split_pem(read_private(own))
    if not key or not certificate:
        raise UnusableFileError(f"{own} must hold a certificate and its private key", own)
    expires = read_note(directory / CARD_NAME).get("expires")
    return TlsKeys(authority, certificate, key, path, own, float(expires) if isinstance(expires, int | float) else 0.0)
