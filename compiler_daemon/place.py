"""A daemon's place while it serves: its directory and its socket, looked at again and again.

Somebody clears `/tmp`, or removes the directory: without a look the daemon would serve on, and nobody could reach it,
nor stop it. A socket that is gone is made again; a daemon whose directory is gone ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from compile_wire.endpoint.address import Address, UnixAddress
from compiler_daemon.access.directory import DirectoryLock
from compiler_daemon.errors import AddressError
from compiler_daemon.rpc.server import RpcServer

logger = logging.getLogger(__name__)

_LOOK_S = 0.5


async def keep_place(
    directory: Path, lock: DirectoryLock, server: RpcServer, address: Address, *, lost: Callable[[], None]
) -> None:
    """Look after the directory, and the socket at `address`, until `lost` was called because the directory is gone."""
    said = False
    while lock.is_in_place():
        if isinstance(address, UnixAddress) and not _is_there(address.path):
            try:
                await server.open_again(address)
                logger.warning("somebody has removed %s: it was made again", address.path)
                said = False
            except AddressError as error:
                if not said:
                    logger.warning("somebody has removed %s, and it cannot be made again: %s", address.path, error)
                said = True
        await asyncio.sleep(_LOOK_S)
    logger.error("somebody has removed %s, or what makes it this daemon's: it ends, and keeps nothing", directory)
    lost()


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True
