"""How many files and connections the daemon may have open at once, and who gives way when they run short.

The kernel's soft limit is often a few hundred, from times when programs kept sets of open files in arrays. It is raised
as far as the hard limit goes, and connections get what the store and the workers leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import stat
import struct
from collections import deque
from collections.abc import Iterator, Mapping

_WANTED = 65_536
_RESERVE = 256
"""For the store, the workers, the log of runs and what the libraries open."""
_MAX_CONNECTIONS = 1024
"""Of one address; a connection costs some tens of kilobytes before it has said a word."""
_LISTENERS = 2

_LOOK_S, _LOOK_AGAIN_S = 0.25, 0.03
"""Between two looks; and while connections crowd in, for those of half a second would fill every place."""
_FEW_BYTES = 1024
"""Who has sent less is still shaking hands over TLS, or has not begun."""
_BYTES_RECEIVED = struct.Struct("=Q")
_BYTES_RECEIVED_AT = 128
"""In the kernel's struct tcp_info."""


def raise_limit() -> int:
    """Raise the soft limit of open files as far as it goes; return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED if hard == resource.RLIM_INFINITY else min(_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return _WANTED if soft == resource.RLIM_INFINITY else soft


def max_connections(open_files: int) -> int:
    """How many connections one address may have, so that a reserve of open files is left."""
    return max(8, min(_MAX_CONNECTIONS, (open_files - min(_RESERVE, open_files // 2)) // _LISTENERS))


async def let_silent_go(port: int, *, most: int) -> None:
    """While a TCP port has more than half of its connections, end those that have said next to nothing, oldest first.

    The address that has most of them gives way before the others: one that floods the port takes nobody's place but
    its own.

    gRPC lets each of them wait for its whole time to shake hands, and takes nobody else meanwhile. Until cancelled.
    """
    seen: dict[int, int] = {}
    turn = 0
    while True:
        await asyncio.sleep(_LOOK_AGAIN_S if len(seen) > most // 4 else _LOOK_S)
        turn += 1
        seen = await asyncio.to_thread(let_go, port, most // 2, seen, turn)


def let_go(port: int, most: int, seen: dict[int, int], turn: int) -> dict[int, int]:
    """One look; `seen` tells when each connection, by its number in the kernel, was seen first. Returns it anew."""
    if len(os.listdir("/proc/self/fd")) <= most:
        return {}
    found: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as scope:
        for inode, connection in _connections(port):
            scope.callback(connection.close)
            found[inode] = connection  # once: the number that listed the descriptors may be one of ours by now
        since = {inode: seen.get(inode, turn) for inode in found}
        quiet = sorted((inode for inode in found if _has_said_little(found[inode])), key=lambda one: (since[one], one))
        for inode in _first_to_go(quiet, found, len(found) - most):
            # It is gRPC's, and ours is another name for it: gRPC reads the end of the stream, and closes it.
            with contextlib.suppress(OSError):
                found[inode].shutdown(socket.SHUT_RDWR)
        return since


def _first_to_go(quiet: list[int], found: Mapping[int, socket.socket], count: int) -> Iterator[int]:
    """Which `count` of the quiet connections go: always the oldest of the address that has most of them."""
    of_address: dict[str, deque[int]] = {}
    for inode in quiet:
        with contextlib.suppress(OSError):  # the other side has gone by itself
            of_address.setdefault(found[inode].getpeername()[0], deque()).append(inode)
    for _ in range(min(count, sum(map(len, of_address.values())))):
        yield max(of_address.values(), key=len).popleft()


def _connections(port: int) -> Iterator[tuple[int, socket.socket]]:
    """Every connection of this process to the port, by another descriptor, which the caller closes."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            # Duplicated first and looked at then: the number may be another's by now, and what we look at is ours.
            number = os.dup(int(name))
            known = os.fstat(number)
            if not stat.S_ISSOCK(known.st_mode):
                os.close(number)
                continue
            connection = socket.socket(fileno=number)
            if _is_of(connection, port):
                yield known.st_ino, connection
            else:
                connection.close()


def _is_of(connection: socket.socket, port: int) -> bool:
    try:
        return (
            connection.family in (socket.AF_INET, socket.AF_INET6)
            and connection.getsockname()[1] == port
            and bool(connection.getpeername())  # a listener has none
        )
    except OSError:
        return False


def _has_said_little(connection: socket.socket) -> bool:
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if len(info) < _BYTES_RECEIVED_AT + _BYTES_RECEIVED.size:
        return False
    received: int = _BYTES_RECEIVED.unpack_from(info, _BYTES_RECEIVED_AT)[0]
    return received < _FEW_BYTES
