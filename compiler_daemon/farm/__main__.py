"""`python -m compiler_daemon.farm`: started by the daemon, which speaks with it over its stdin and stdout."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys

from compiler_daemon.text.log_format import WORKER_FORMAT, handler


def main() -> int:
    """Serve the daemon; return the exit code."""
    # Frames travel on the socket that the daemon gave us; whatever a library prints must not.
    channel = socket.socket(fileno=os.dup(1))
    os.dup2(2, 1)
    logging.basicConfig(level=logging.INFO, handlers=[handler(WORKER_FORMAT)])
    return asyncio.run(_serve(channel))


async def _serve(channel: socket.socket) -> int:
    from compiler_daemon.farm.client import run

    reader, writer = await asyncio.open_connection(sock=channel)
    return await run(reader, writer)


if __name__ == "__main__":
    sys.exit(main())
