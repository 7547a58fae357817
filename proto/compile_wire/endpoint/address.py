"""Where the daemon listens, and whether anyone does: with a plain socket, before gRPC is imported.

Guarantees: `probe` takes at most the given seconds, resolves no names and sends nothing. A Unix socket that answers is
served by this very user. Other machines are spoken to only with TLS, for which a directory must have the authority's
certificate; without it only loopback interfaces are: the token would travel in the clear.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from compile_wire.errors import AbsentError, AddressError, SilentError, UnsafeError

_MAX_DAEMON_FILE_BYTES = 64 * 1024
_MAX_HOST_TEXT = 255
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
    def is_local(self) -> bool:
        """Whether it is of this machine."""
        return self.is_unix or (self.is_number and ipaddress.ip_address(self.host).is_loopback)

    @property
    def is_number(self) -> bool:
        """Whether the host is a number: a name would have to be looked up first."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def grpc_target(self) -> str:
        """The name that gRPC gives it."""
        if self.is_unix:
            return f"unix:{self.path}"
        if not self.is_number:
            return f"dns:///{self.host}:{self.port}"
        return f"ipv6:[{self.host}]:{self.port}" if ":" in self.host else f"ipv4:{self.host}:{self.port}"

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def find_address(given: str, directory: Path, *, secured: bool = False) -> Address:
    """Return the address that was given, else the one that is written down, else the daemon's usual socket."""
    return parse_address(given or _written_down(directory) or f"unix:{directory / 'daemon.sock'}", secured=secured)


def parse_address(text: str, *, secured: bool = False) -> Address:
    """Return `text` as an address; raise `AddressError` where it is none that can be used.

    `secured` is True where TLS will be used: then other machines are spoken to, and may have names.
    """
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
        if secured and _is_name(host):
            return Address(host=host, port=int(port))
        raise AddressError(
            f"without keys for TLS a host is named by its number, or localhost: {host[:200]!r}"
            if _is_name(host)
            else f"no host in the address {text[:200]!r}"
        ) from error
    if not secured and not ip.is_loopback:
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
    except TimeoutError as error:
        if address.is_local:
            raise AbsentError(f"no daemon at {address} ({error})") from error
        # Looking again costs as long each time, unlike with a daemon of this machine that is not there.
        raise SilentError(f"nobody answers at {address} within {timeout_s:g} s") from error
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
    """By the daemon that serves, in its own directory; by `keys client`, in the directory of a client elsewhere."""
    for name in ("daemon.json", "client.json"):
        try:
            with (directory / name).open("rb") as file:
                fields = json.loads(file.read(_MAX_DAEMON_FILE_BYTES))
        except (OSError, ValueError, RecursionError):  # absent, half-written or foreign: the next is tried
            continue
        address = fields.get("address") if isinstance(fields, dict) else None
        if isinstance(address, str) and address:
            return address
    return ""


def _is_name(host: str) -> bool:
    return 0 < len(host) <= _MAX_HOST_TEXT and host.isascii() and host.replace("-", "").replace(".", "").isalnum()
