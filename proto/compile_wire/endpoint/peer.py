"""Who listens at an address, asked with a plain socket: before a token is shown, and before gRPC is imported.

Guarantees: nothing is sent and no name is looked up but `localhost`; an answer takes at most the given seconds.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass

from compile_wire.endpoint.address import Address, UnixAddress
from compile_wire.errors import PeerError

_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """Says which process of which user listens at a Unix socket, in the kernel's word."""

    pid: int
    user: int


def probe(address: Address, timeout_s: float) -> Peer | None:
    """Return who accepts connections there, who is this very user; None over TCP, where nobody can say.

    Raises `OSError` where nobody does in time, and `PeerError` where another user does.
    """
    peer = find_peer(address, timeout_s)
    # A directory's permissions may have been loose when the socket was made: the kernel knows who listens.
    if peer is not None and peer.user != (user := os.geteuid()):
        raise PeerError(
            f"the socket {address} is served by user {peer.user}, not by user {user}",
            whose=f"process {peer.pid} of user {peer.user}, not of user {user}",
        )
    return peer


def find_peer(address: Address, timeout_s: float) -> Peer | None:
    """Return who accepts connections there, whoever it is; None where nobody can say.

    Raises `OSError` where nobody does in time.
    """
    if isinstance(address, UnixAddress):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(str(address.path))
            return _peer(sock)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect((address.host, address.port))
    return None


def _peer(connected: socket.socket) -> Peer | None:
    option = getattr(socket, "SO_PEERCRED", None)  # Linux only; elsewhere the directory's permissions must do
    if option is None:
        return None
    pid, user, _ = _CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size))
    return Peer(pid, user)
