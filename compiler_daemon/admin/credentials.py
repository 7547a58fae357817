"""What an operator's commands show a daemon: keys of the daemon's directory, or of one made for a client elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from compiler_daemon.access.directory import TOKEN_NAME, read_private
from compiler_daemon.access.register import KeyFiles, split_pem
from compiler_daemon.errors import DirectoryError, NotRunningError

CARD_NAME = "client.json"
CERTIFICATE_NAME = "client.pem"
AUTHORITY_NAME = "ca.pem"


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorKeys:
    """Token or certificate; neither shows in a repr."""

    token: str = field(default="", repr=False)
    authority: bytes = b""
    """Empty where there are no keys for TLS."""
    certificate: bytes = b""
    key: bytes = field(default=b"", repr=False)
    authority_path: Path = Path()
    certificate_path: Path | None = None
    expires: float = 0.0
    """When the certificate ends, in seconds since the epoch; 0 where it is not known."""


def read_operator_keys(directory: Path, *, tls: bool) -> OperatorKeys:
    """Read what is there; raise `NotRunningError` where it has never been a daemon's directory or a client's.

    Raises `DirectoryError` where others could have read or written it.
    """
    token = _read(directory / TOKEN_NAME).decode("ascii", "replace").strip()
    authority_path = next(
        (path for path in (directory / AUTHORITY_NAME, KeyFiles(directory).authority) if path.exists()), None
    )
    own = directory / CERTIFICATE_NAME
    if not token and not own.exists():
        raise NotRunningError(
            f"no daemon runs on {directory}: start one with `compiler-daemon serve`, or name another with --dir"
        )
    if not tls or authority_path is None:
        return OperatorKeys(token=token)
    key, certificate = split_pem(_read(own))
    if own.exists() and not (key and certificate):
        raise DirectoryError(f"{own} must hold a certificate and its private key")
    return OperatorKeys(
        token=token,
        authority=_read(authority_path),
        certificate=certificate,
        key=key,
        authority_path=authority_path,
        certificate_path=own if certificate else None,
        expires=float(_card(directory).get("expires", 0.0)),
    )


def written_address(directory: Path) -> str:
    """Return the address that `keys client` wrote into a client's directory; empty where it wrote none."""
    return str(_card(directory).get("address", ""))


def is_clients(directory: Path) -> bool:
    """Whether the directory was made for a client elsewhere: no daemon serves it."""
    return (directory / CARD_NAME).exists()


def _card(directory: Path) -> dict[str, str | float]:
    try:
        card = json.loads(_read(directory / CARD_NAME) or b"{}")
    except (ValueError, RecursionError):
        return {}
    if not isinstance(card, dict):
        return {}
    kinds = {"address": str, "expires": int | float}
    return {name: card[name] for name, kind in kinds.items() if isinstance(card.get(name), kind)}


def _read(path: Path) -> bytes:
    try:
        return read_private(path)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise DirectoryError(f"{path} cannot be read: {error.strerror}") from error
