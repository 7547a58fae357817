"""The Unix socket's path before it is bound: a stale socket is removed, a live one is somebody else's."""

from __future__ import annotations

import stat

from compile_wire.endpoint.address import UnixAddress
from compile_wire.endpoint.peer import find_peer
from compiler_daemon.errors import AddressError, RunningError

_PROBE_S = 2.0


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
    try:
        peer = find_peer(address, _PROBE_S)
    except ConnectionRefusedError:
        address.path.unlink(missing_ok=True)
        return
    except TimeoutError:
        # A full backlog: somebody listens, and does not answer.
        raise RunningError(f"something listens at {address} and does not answer: end it, then start again") from None
    who = f"process {peer.pid}" if peer else "somebody"
    raise RunningError(f"{who} listens at {address} already: stop it, or choose another --address")
