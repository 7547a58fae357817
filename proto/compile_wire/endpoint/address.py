"""Addresses of a daemon, read in one way by trainers, by operators' commands and by the daemon itself.

Guarantees: an address that was read has a form that can be listened at or dialled. Nothing is looked up, opened or sent
but the notes in a directory, which are believed only where nobody else can have written them.
"""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path

from compile_wire.endpoint.private_files import read_private
from compile_wire.errors import AddressError, UnusableFileError

NOTE_NAME = "daemon.json"
"""The note of the daemon that serves a directory."""
CARD_NAME = "client.json"
"""What `compiler-daemon keys client` notes in a directory that it makes for a client elsewhere."""
SOCKET_NAME = "daemon.sock"
"""Of the daemon's usual socket."""
USERS_NAME = "users.lock"
"""A file on which whoever uses a daemon has a shared lock; a daemon that ends by itself makes it, and no other."""

MAX_SOCKET_PATH_BYTES = 107
"""The kernel's `sun_path` has 108 bytes, the last of them zero."""

_MAX_HOST_TEXT = 255


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket in the file system; only who may enter its directory can connect."""

    path: Path

    @property
    def grpc_target(self) -> str:
        """The name that gRPC gives it."""
        return str(self)

    @property
    def is_local(self) -> bool:
        """Whether only processes of this machine can connect."""
        return True

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host and a port; where a daemon is to listen, port 0 lets the system choose."""

    host: str
    port: int

    @property
    def is_number(self) -> bool:
        """Whether the host is a number: a name would have to be looked up first."""
        return _number(self.host) is not None

    @property
    def is_local(self) -> bool:
        """Whether only processes of this machine can connect."""
        number = _number(self.host)
        return self.host == "localhost" or (number is not None and number.is_loopback)

    @property
    def grpc_target(self) -> str:
        """The name that gRPC gives it."""
        if not self.is_number:
            return f"dns:///{self.host}:{self.port}"
        return f"ipv6:[{self.host}]:{self.port}" if ":" in self.host else f"ipv4:{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


def parse_address(text: str) -> Address:
    """Return the address that `text` names; raise `AddressError` where it is neither unix:PATH nor HOST:PORT.

    A host is a number or a name as DNS has them. Whether it can be listened at or dialled is not looked at: see
    `check_path_length` and `dialled`.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        path = path.removeprefix("//") if path.startswith("///") else path
        if not path or "\0" in path:
            raise AddressError(f"no path in the address {text[:200]!r}", flaw="path")
        # Made absolute here: the daemon and those who read its address from a file may run in different directories.
        return UnixAddress(Path(os.path.abspath(path)))
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) >= 2**16:
        raise AddressError(f"neither unix:PATH nor HOST:PORT: {text[:200]!r}", flaw="form")
    number = _number(host)
    if number is None and not _is_name(host):
        raise AddressError(f"no host in the address {text[:200]!r}", flaw="form")
    return TcpAddress(host if number is None else str(number), int(port))


def check_path_length(address: Address) -> None:
    """Raise `AddressError` where the address is a socket's path that is longer than the system allows."""
    if isinstance(address, UnixAddress) and (length := len(os.fsencode(address.path))) > MAX_SOCKET_PATH_BYTES:
        raise AddressError(
            f"the socket's path has {length} bytes and the system allows {MAX_SOCKET_PATH_BYTES}: {address.path}",
            flaw="length",
        )


def dialled(address: Address, *, secured: bool) -> Address:
    """Return the address as a client dials it: a name only over TLS, `localhost` as its number.

    `secured` is True where TLS will be used: then other machines are spoken to. Raises `AddressError` where the address
    is of another machine without it, or has no port.
    """
    if isinstance(address, UnixAddress):
        return address
    if address.port == 0:
        raise AddressError(f"neither unix:PATH nor HOST:PORT: {str(address)[:200]!r}", flaw="form")
    if address.host == "localhost":
        return TcpAddress("127.0.0.1", address.port)
    if secured or address.is_local:
        return address
    if not address.is_number:
        raise AddressError(
            f"without keys for TLS a host is named by its number, or localhost: {address.host[:200]!r}", flaw="clear"
        )
    raise AddressError(
        f"{address.host} is not this machine; artifacts and tokens are not sent over an open network", flaw="clear"
    )


def find_address(directory: Path) -> Address:
    """Return the address that is written down in a directory, else that of the daemon's usual socket there.

    Raises `AddressError` where what is written down is none, and `UnsafeError` where others could have written it.
    """
    written = written_address(directory)
    return parse_address(written) if written else UnixAddress(Path(os.path.abspath(directory / SOCKET_NAME)))


def written_address(directory: Path) -> str:
    """Return what the directory's daemon has written, else what `keys client` has; empty where nobody has.

    Raises `UnsafeError` where others could have written it.
    """
    for name in (NOTE_NAME, CARD_NAME):
        address = read_note(directory / name).get("address")
        if isinstance(address, str) and address:
            return address
    return ""


def read_note(path: Path) -> dict[str, object]:
    """Return the fields of a note; none where it is absent, half-written or foreign.

    Raises `UnsafeError` where others could have written or read it.
    """
    try:
        fields = json.loads(read_private(path))
    except (OSError, UnusableFileError, ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _is_name(host: str) -> bool:
    return 0 < len(host) <= _MAX_HOST_TEXT and host.isascii() and host.replace("-", "").replace(".", "").isalnum()
