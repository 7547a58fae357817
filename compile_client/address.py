"""Where the daemon listens, and whether anyone does: with a plain socket, before gRPC is imported.

Guarantees: `probe` takes at most the given seconds, resolves no names and sends nothing. A Unix socket that answers is
served by this very user. Only loopback interfaces are spoken to over TCP: the token would travel in the clear.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from compile_client.errors import AbsentError, AddressError, UnsafeError

_MAX_DAEMON_FILE_BYTES = 64 * 1024
_PEER_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Address:
    """A Unix socket's path, or a host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket: then client and daemon are one user on one host."""
        return bool(self.path)

    @property
    def grpc_target(self) -> str:
        """The name that gRPC gives it."""
        if self.is_unix:
            return f"unix:{self.path}"
        return f"ipv6:[{self.host}]:{self.port}" if ":" in self.host else f"ipv4:{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.is_unix else f"{self.host}:{self.port}"


def find_address(given: str, directory: Path) -> Address:
    """Return the address that was given, else the one that the daemon wrote down, else its usual socket."""
    return parse_address(given or _written_down(directory) or f"unix:{directory / 'daemon.sock'}")


def parse_address(text: str) -> Address:
    """Return `text` as an address; raise `AddressError` where it is none that can be used."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path or "\0" in path:
            raise AddressError(f"no path in the address {text[:200]!r}")
        return Address(path=os.path.abspath(path))
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        raise AddressError(f"neither unix:PATH nor HOST:PORT: {text[:200]!r}")
    try:
        ip = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        raise AddressError(f"a host is named by its number, or localhost: {host[:200]!r}") from error
    if not ip.is_loopback:
        raise AddressError(f"{ip} is not this machine; artifacts and tokens are not sent over an open network")
    return Address(host=str(ip), port=int(port))


def probe(address: Address, timeout_s: float) -> None:
    """Return where someone of this user accepts connections; raise `AbsentError` or `UnsafeError` where not."""
    family = socket.AF_UNIX if address.is_unix else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(address.path if address.is_unix else (address.host, address.port))
            if address.is_unix:
                _check_peer(sock, address)
    except OSError as error:  # not there, refused, a full backlog, a path too long for a socket
        raise AbsentError(f"no daemon at {address} ({error.strerror or error})") from error


def _check_peer(sock: socket.socket, address: Address) -> None:
    """A directory's permissions may have been loose when the socket was made: the kernel knows who listens."""
    option = getattr(socket, "SO_PEERCRED", None)  # Linux only; elsewhere the directory's permissions must do
    if option is None:
        return
    _, uid, _ = _PEER_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, option, _PEER_CREDENTIALS.size))
    if uid != os.geteuid():
        raise UnsafeError(f"the socket {address} is served by user {uid}, not by user {os.geteuid()}")


def _written_down(directory: Path) -> str:
    try:
        with (directory / "daemon.json").open("rb") as file:
            fields = json.loads(file.read(_MAX_DAEMON_FILE_BYTES))
    except (OSError, ValueError, RecursionError):  # absent, half-written or foreign: the usual socket is tried
        return ""
    address = fields.get("address") if isinstance(fields, dict) else None
    return address if isinstance(address, str) else ""
