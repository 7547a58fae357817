"""How many files and connections the daemon may have open at once, and who gives way when they run short.

The kernel's soft limit is often a few hundred, from times when programs kept sets of open files in arrays. It is raised
as far as the hard limit goes, and connections get what the store and the workers leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
import os
import resource
import socket
import stat
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_WANTED = 65_536
_RESERVE = 256
"""For the store, the workers, the log of runs and what the libraries open."""
_MAX_CONNECTIONS = 1024
"""Of one address; a connection costs some tens of kilobytes before it has said a word."""
_LISTENERS = 2

_SILENT_S = 1
"""For so long the kernel keeps a connection that says nothing to itself."""
_LOOK_S, _LOOK_AGAIN_S = 0.1, 0.01
"""Between two looks; and while connections crowd in, for those of a quarter of a second would fill every place."""
_FEW_BYTES = 1024
"""Who has sent less is still shaking hands over TLS, or has not begun."""
_NOT_A_GREETING = 64
"""Bytes; TLS begins with a message of some hundreds, so who has sent less has not begun."""
_BYTES_RECEIVED = struct.Struct("=Q")
_BYTES_RECEIVED_AT = 128
"""In the kernel's struct tcp_info."""
_info = ctypes.create_string_buffer(256)
"""Filled anew for each connection; there is one look at a time."""
_kernel = ctypes.PyDLL(None)
"""Called without letting go of the interpreter: a look asks for a thousand connections, and would wait for it as often;
and without a socket that would close what is not ours."""


class Connection(NamedTuple):
    """One that gRPC has; a number of ours for it may be another's a moment later."""

    descriptor: int
    turn: int
    """At which it was seen first."""
    address: str
    """Of the other side, without its port."""
    received: int
    """Bytes, at the last look."""


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
    """Return how many connections one address may have, so that a reserve of open files is left."""
    return max(8, min(_MAX_CONNECTIONS, (open_files - min(_RESERVE, open_files // 2)) // _LISTENERS))


def keep_silent_out(port: int) -> None:
    """Have the kernel hand over connections to a TCP port once they have said something, or for a second have not.

    Who speaks first in TLS, and in HTTP/2, is the client. What says nothing costs the daemon nothing in that second,
    and nothing at all where it has left by then. A kernel that does not know this leaves it to `let_silent_go`.
    """
    for descriptor, _ in _sockets():
        with contextlib.suppress(OSError), _opened(descriptor) as listener:
            if _is_of(listener, port) and listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _SILENT_S)


async def let_silent_go(port: int, *, most: int) -> None:
    """End connections that have said next to nothing, while a TCP port with `most` places has many.

    Of the places that clients who are in have left, an eighth is for those that have not begun to shake hands, and a
    quarter for those that do. The address that has most of them gives way before the others, and of one address the
    oldest. Where all places fill between two looks, gRPC turns away whoever comes.

    gRPC lets each of them wait for its whole time to shake hands, and takes nobody else meanwhile. Until cancelled.
    """
    seen: dict[int, Connection] = {}
    turn = crowd = 0
    while True:
        await asyncio.sleep(_LOOK_AGAIN_S if crowd > most // 16 else _LOOK_S)
        turn += 1
        if len(os.listdir("/proc/self/fd")) > most // 8:
            seen = await asyncio.to_thread(let_go, port, most, seen, turn)
            crowd = sum(connection.received < _FEW_BYTES for connection in seen.values())
        else:
            seen, crowd = {}, 0


def let_go(port: int, most: int, seen: Mapping[int, Connection], turn: int) -> dict[int, Connection]:
    """End those connections for which there is no place, of `most` for all; return what was found.

    `seen` is what the turn before returned: the connections of then, by their number in the kernel.
    """
    found = dict(_connections(port, seen, turn))
    oldest_first = sorted(found, key=lambda one: (found[one].turn, one))
    not_begun = [one for one in oldest_first if found[one].received < _NOT_A_GREETING]
    greeting = [one for one in oldest_first if _NOT_A_GREETING <= found[one].received < _FEW_BYTES]
    left = max(0, most - (len(found) - len(not_begun) - len(greeting)))
    going = [*_first_to_go(not_begun, found, len(not_begun) - math.ceil(left / 8))]
    going += _first_to_go(greeting, found, len(greeting) - math.ceil(left / 4))
    for inode in going:
        with contextlib.suppress(OSError), _opened(found[inode].descriptor) as connection:
            # It is gRPC's, and ours is another name for it: gRPC reads the end of the stream, and closes it. Where the
            # number is another's by now, it has been closed already.
            if os.fstat(connection.fileno()).st_ino == inode:
                connection.shutdown(socket.SHUT_RDWR)
    return found


def _first_to_go(oldest_first: list[int], found: Mapping[int, Connection], count: int) -> Iterator[int]:
    """Yield `count` of these connections, which go: always the oldest of the address that has most of them."""
    of_address: dict[str, deque[int]] = {}
    for inode in oldest_first:
        of_address.setdefault(found[inode].address, deque()).append(inode)
    for _ in range(min(count, len(oldest_first))):
        yield max(of_address.values(), key=len).popleft()


def _connections(port: int, seen: Mapping[int, Connection], turn: int) -> Iterator[tuple[int, Connection]]:
    """Yield every connection of this process to the port, by its number in the kernel."""
    for descriptor, inode in _sockets():
        if known := seen.get(inode):
            if known.received < _FEW_BYTES:
                known = known._replace(descriptor=descriptor, received=_bytes_received(descriptor))
            yield inode, known
            continue
        with contextlib.suppress(OSError), _opened(descriptor) as new:
            if _is_of(new, port):
                # A listener has no such name, nor has a connection whose other side has gone by itself.
                yield inode, Connection(descriptor, turn, new.getpeername()[0], _bytes_received(descriptor))


def _sockets() -> Iterator[tuple[int, int]]:
    """Yield every socket of this process: its descriptor, and its number in the kernel."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found = os.fstat(int(name))
            if stat.S_ISSOCK(found.st_mode):
                yield int(name), found.st_ino


@contextlib.contextmanager
def _opened(descriptor: int) -> Iterator[socket.socket]:
    """Open a socket a second time, so that what is looked at and ended is one thing; gRPC may close it meanwhile."""
    number = os.dup(descriptor)
    try:
        found = socket.socket(fileno=number)
    except OSError:  # no socket any more
        os.close(number)
        raise
    with found:
        yield found


def _is_of(found: socket.socket, port: int) -> bool:
    # A port of UDP may have the same number.
    return (
        found.family in (socket.AF_INET, socket.AF_INET6)
        and found.type == socket.SOCK_STREAM
        and found.getsockname()[1] == port
    )


def _bytes_received(descriptor: int) -> int:
    """Return how much the other side has sent; where the kernel does not say, enough to be left alone."""
    length = ctypes.c_uint32(len(_info))
    if _kernel.getsockopt(descriptor, socket.IPPROTO_TCP, socket.TCP_INFO, _info, ctypes.byref(length)):
        return _FEW_BYTES
    if length.value < _BYTES_RECEIVED_AT + _BYTES_RECEIVED.size:
        return _FEW_BYTES
    received: int = _BYTES_RECEIVED.unpack_from(_info, _BYTES_RECEIVED_AT)[0]
    return received
