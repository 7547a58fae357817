"""The daemon's end of its farm: the farm's process, started, spoken with in frames, and ended.

Guarantees: what the process says is read as strictly as a worker's words; where it breaks the protocol, or ends, every
job that it had is given back. After `close` it has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from compile_wire.errors import WireError
from compiler_daemon.worker.protocol import HEADER, body_length, decode_body, encode_frame
from compiler_daemon.workers.variables import kept_variables

logger = logging.getLogger(__name__)

_COMMAND = ("-P", "-m", "compiler_daemon.farm")
_DASKS_OWN = ("DASK_*",)
_LOG_BYTES = 4 * 2**20
_END_S = 2.0


class Link:
    """Speaks with one process of the farm while that lives."""

    def __init__(self, process: subprocess.Popen[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._process = process
        self._reader = reader
        self._writer = writer

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @classmethod
    async def open(cls, log: Path, environ: Mapping[str, str] = os.environ) -> Self:
        """Start the process; raise `OSError` where that fails."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.to_thread(_spawn, theirs.fileno(), log, environ)
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(process, reader, writer)

    async def read(self, on_message: Callable[[Mapping[str, Any]], None]) -> None:
        """Hand over what the process says until it ends; raise `WireError` where it says what it must not."""
        while True:
            try:
                header = await self._reader.readexactly(HEADER.size)
                body = await self._reader.readexactly(body_length(header))
            except (asyncio.IncompleteReadError, OSError):
                return
            on_message(decode_body(body))

    async def send(self, message: dict[str, Any]) -> None:
        """Say something; where the process has gone, its end is read instead."""
        with contextlib.suppress(OSError):
            self._writer.write(encode_frame(message))
            await self._writer.drain()

    def send_soon(self, message: dict[str, Any]) -> None:
        """Say something small, without waiting."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(encode_frame(message))

    async def close(self) -> None:
        """End the process: ask, wait a moment, kill."""
        self._writer.close()
        with contextlib.suppress(OSError, WireError):
            await self._writer.wait_closed()
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _spawn(channel: int, log: Path, environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(OSError):
        if log.stat().st_size > _LOG_BYTES:
            os.truncate(log, 0)
    with open(log, "ab", buffering=0) as file:
        return subprocess.Popen(
            [sys.executable, *_COMMAND],
            stdin=channel,
            stdout=channel,
            stderr=file,
            env=kept_variables(environ, _DASKS_OWN),
            start_new_session=True,
        )
