"""The farm's process: speaks frames with the daemon on one side, and as a Dask client with the scheduler on the other.

It decides nothing: jobs go to those whose environment is theirs, and all that is heard of them goes to the daemon. Ends
with the daemon's end of the socket, or with the scheduler.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from distributed import Client, Future, KilledWorker, Security

from compile_wire.digest import Digest
from compile_wire.errors import WireError
from compile_wire.packing import pack
from compiler_daemon.farm import node
from compiler_daemon.farm.places import Places
from compiler_daemon.farm.protocol import SCHEDULER_GONE, read_answer
from compiler_daemon.worker.protocol import HEADER, body_length, decode_body, encode_frame

logger = logging.getLogger(__name__)

_CONNECT_S = 10
_WATCH_S = 0.25
"""How often it is seen that the scheduler has gone, which costs nothing."""
_LOOK_S = 2.0
"""How often the scheduler is asked who is there."""
_SILENT_S = 5.0
"""A scheduler that says nothing for so long has gone."""
_URGENT, _BACKGROUND = 10, -10
"""Dask's priorities: what a person waits for goes before a sweep's and a replay's."""


async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """Serve one daemon until it goes, or the scheduler does; return the exit code."""
    settings = await read_message(reader)
    if settings is None:
        return 0
    try:
        client = await Client(
            settings["address"],
            asynchronous=True,
            security=_security(settings),
            timeout=_CONNECT_S,
            set_as_default=False,
            name="compiler-daemon",
        )
    except (OSError, TimeoutError) as error:
        _tell(writer, {"type": "farm", "workers": 0, "environments": {}, "reason": f"it does not answer: {error}"})
        await writer.drain()
        return SCHEDULER_GONE
    try:
        return await _Farm(client, writer, pack(settings["limits"])).serve(reader)
    finally:
        closing: Any = client.close(timeout=1)
        try:
            await closing
        except Exception as error:  # noqa: BLE001 - it ends in any case
            logger.info("the scheduler was left without a word: %s", error)


async def read_message(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """Return the next frame; None at the end. Raises `MalformedError` for what is none."""
    try:
        header = await reader.readexactly(HEADER.size)
        return decode_body(await reader.readexactly(body_length(header)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class _Farm:
    """Serves one daemon over one scheduler."""

    def __init__(self, client: Client, writer: asyncio.StreamWriter, limits: bytes) -> None:
        self._client = client
        self._writer = writer
        self._limits = limits
        self._token = secrets.token_hex(8)
        self._topic = f"compiler-daemon-{self._token}"
        self._places = Places(client, limits, self._token)
        self._jobs: dict[int, tuple[Future[bytes], asyncio.Task[None], Digest]] = {}
        self._begun: set[int] = set()
        self._leaving: set[asyncio.Future[None]] = set()
        self._told: dict[str, Any] = {}

    async def serve(self, reader: asyncio.StreamReader) -> int:
        """Serve until the daemon goes, or the scheduler does; return the exit code."""
        self._client.subscribe_topic(self._topic, self._hear)
        looking = asyncio.create_task(self._look())
        reading = asyncio.create_task(self._read(reader))
        done, pending = await asyncio.wait({looking, reading}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        if reading in done:
            return reading.result()
        for number in list(self._jobs):
            self._end(number, "its scheduler has gone")
        await self._writer.drain()
        return looking.result()

    async def _look(self) -> int:
        """Watch scheduler and workers until the scheduler has gone."""
        looked = -math.inf
        while self._client.status == "running":
            if time.monotonic() - looked >= _LOOK_S:
                looked = time.monotonic()
                try:
                    await asyncio.wait_for(self._places.look(), _SILENT_S)
                except OSError as error:  # also where it is silent
                    logger.info("the scheduler does not answer: %s", error)
                    break
                for number, (_, _, environment) in list(self._jobs.items()):
                    if not self._places.of(environment):
                        self._end(number, "no worker of this environment is left there")
            summary = self._places.summary()
            if summary != self._told:
                self._told = summary
                _tell(self._writer, {"type": "farm", **summary})
            await asyncio.sleep(_WATCH_S)
        reason = "its scheduler has gone"
        _tell(self._writer, {"type": "farm", "workers": 0, "environments": {}, "reason": reason})
        return SCHEDULER_GONE

    async def _read(self, reader: asyncio.StreamReader) -> int:
        while (message := await read_message(reader)) is not None:
            match message["type"]:
                case "job":
                    self._submit(message)
                case "leave":
                    self._drop(message["id"])
                case other:
                    logger.error("the daemon said something unknown: %s", other[:40])
                    return 1
        return 0

    def _submit(self, message: Mapping[str, Any]) -> None:
        number, environment = message["id"], Digest(message["environment"])
        workers = self._places.of(environment)
        if not workers:
            _tell(self._writer, {"type": "away", "id": number, "reason": "no worker there has this environment"})
            return
        order = {name: message[name] for name in ("id", "environment", "key", "graph", "replay", "ahead")}
        task: Callable[..., Any] = node.compile_there
        future: Future[bytes] = self._client.submit(
            task,
            pack(order),
            self._limits,
            self._topic,
            key=f"compiler-daemon-{self._token}-{number}",
            workers=workers,
            pure=False,
            priority=_BACKGROUND if message["replay"] or message["ahead"] else _URGENT,
        )
        self._jobs[number] = future, asyncio.create_task(self._wait(number, future)), environment

    async def _wait(self, number: int, future: Future[bytes]) -> None:
        try:
            answer = await future
            for frame in read_answer(bytes(answer), number):
                if frame["type"] == "away":
                    self._places.forget(self._jobs[number][2])
                _tell(self._writer, frame)
                await self._writer.drain()
        except WireError as error:
            _tell(self._writer, {"type": "lost", "id": number, "reason": str(error)[:500]})
        except KilledWorker as error:
            # Several of Dask's workers have died, each with this graph on it.
            _tell(self._writer, {"type": "lost", "id": number, "reason": str(error)[:500]})
        except Exception as error:  # noqa: BLE001 - whatever the task raised there arrives here
            # The scheduler's end, too. It says nothing about the graph.
            _tell(self._writer, {"type": "away", "id": number, "reason": f"{type(error).__name__}: {error}"[:500]})
        finally:
            self._begun.discard(number)
            if self._jobs.pop(number, None) is not None:
                future.release()

    def _hear(self, event: tuple[float, Any]) -> None:
        """Pass on what a node says of a job."""
        said = event[1]
        number = said.get("id") if isinstance(said, dict) else None
        if number not in self._jobs:
            return
        host, phase = str(said.get("host", ""))[:64], str(said.get("phase", ""))[:64]
        if number not in self._begun:
            self._begun.add(number)
            _tell(self._writer, {"type": "begun", "id": number, "host": host})
        _tell(self._writer, {"type": "progress", "id": number, "phase": phase, "host": host})

    def _end(self, number: int, reason: str) -> None:
        """Give a job back to the daemon."""
        if number in self._jobs:
            self._drop(number)
            _tell(self._writer, {"type": "away", "id": number, "reason": reason})

    def _drop(self, number: int) -> None:
        if (job := self._jobs.pop(number, None)) is not None:
            future, task, _ = job
            task.cancel()
            leaving = asyncio.ensure_future(_take_back(future))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)


async def _take_back(future: Future[bytes]) -> None:
    """Take a job back from the scheduler: what has not begun does not. The scheduler may have gone."""
    try:
        await asyncio.wait_for(future.cancel(), _CONNECT_S)
    except Exception as error:  # noqa: BLE001 - nothing depends on it
        logger.info("a job was not taken back: %s", error)


def _security(settings: Mapping[str, Any]) -> Security | None:
    if not settings["ca"]:
        return None
    return Security(
        tls_ca_file=settings["ca"],
        tls_client_cert=settings["certificate"],
        tls_client_key=settings["key"],
        require_encryption=True,
    )


def _tell(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(encode_frame(message))
