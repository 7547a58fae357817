"""The Unix socket's path before it is bound: a stale socket is removed, a live one is somebody else's."""

from __future__ import annotations

import os
import socket
import stat
import struct

from compiler_daemon.address import UnixAddress
from compiler_daemon.errors import AddressError, PeerError, RunningError

_CONNECT_S = 2.0
_CREDENTIALS = struct.Struct("3i")


def check_peer(address: UnixAddress) -> None:
    """Raise `PeerError` where another user serves the socket: nothing is to be shown to that one.

    A socket that cannot be connected to is left to the caller's own attempt.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(str(address.path))
        except OSError:
            return
        pid, user = _peer(probe)
    if user != os.geteuid():
        raise PeerError(
            f"{address} is served by process {pid} of user {user}, not of user {os.geteuid()}: it is shown no token; "
            "name your own daemon's directory with --dir"
        )


def _peer(connected: socket.socket) -> tuple[int, int]:
    """Process and user at the other end, as the kernel says."""
    pid, user, _ = _CREDENTIALS.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, user


def clear_socket(address: UnixAddress) -> None:
    """Make way for a new socket.

    Raises `RunningError`, naming the process, where one listens there, and `AddressError` where something else than a
    socket is in the way or the directory does not exist.
    """
    try:
        mode = address.path.lstat().st_mode
    except FileNotFoundError:
        if not address.path.parent.is_dir():
            raise AddressError(f"{address.path.parent} does not exist: make it, or choose another --address") from None
        return
    if not stat.S_ISSOCK(mode):
        raise AddressError(f"{address.path} is there and is no socket: remove it, or choose another --address")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_CONNECT_S)
        try:
            probe.connect(str(address.path))
        except ConnectionRefusedError:
            address.path.unlink(missing_ok=True)
            return
        except TimeoutError:
            # A full backlog: somebody listens, and does not answer.
            raise RunningError(
                f"something listens at {address} and does not answer: end it, then start again"
            ) from None
        pid, _ = _peer(probe)
    raise RunningError(f"process {pid} listens at {address} already: stop it, or choose another --address")
