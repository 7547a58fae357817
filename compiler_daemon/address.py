"""Addresses to listen on: `unix:PATH` or `HOST:PORT`, checked before anything is bound."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from compiler_daemon.errors import UsageError

MAX_SOCKET_PATH_BYTES = 107
"""The kernel's `sun_path` has 108 bytes, the last of them zero."""


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system; only who may enter its directory can connect."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host and a port; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only processes of this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


Address = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """Return the address that `text` names; raise `UsageError`, saying what to do, where it is none."""
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{text!r} is no address: write unix:PATH or HOST:PORT")
    return TcpAddress(host.removeprefix("[").removesuffix("]"), int(port))


def _unix(text: str) -> UnixAddress:
    # Made absolute here: the daemon and those who read its address from a file may run in different directories.
    path = Path(os.path.abspath(text.removeprefix("//") if text.startswith("///") else text))
    if not text or "\0" in text:
        raise UsageError("a Unix address needs a path: write unix:PATH")
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        raise UsageError(
            f"the socket's path has {length} bytes and the system allows {MAX_SOCKET_PATH_BYTES}: {path}; "
            "choose a shorter one with --address unix:PATH"
        )
    return UnixAddress(path)
