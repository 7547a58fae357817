"""The farm as compiles see it: how many jobs it takes for an environment, and workers with a remote end.

Guarantees: a job for an environment goes only to those who have stated it. No more jobs are there than they take at
once; who waits is served before what nobody waits for. A job that nobody has begun in time, or of which nothing is
heard any more, is given back as `FarmAwayError`, and so is every job when process or scheduler end. What comes back is
read as a local worker's words are, and stored by the caller's own checks.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from compile_wire.digest import Digest, parse_digest
from compile_wire.errors import MalformedError, WireError
from compile_wire.limits import MAX_ARTIFACT_BYTES
from compiler_daemon.config import FarmConfig, PoolConfig, default_memory_bytes
from compiler_daemon.errors import DrainingError, FarmAwayError, JobRefusedError, WorkerLostError
from compiler_daemon.farm.link import Link
from compiler_daemon.jobs import CompileResult, Job
from compiler_daemon.workers.frames import BlobFrame, Done, Progress, RefusedFrame, read_reply
from compiler_daemon.workers.process import BlobSink

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_HEALTHY_S = 30.0
_MAX_ENVIRONMENTS = 64


class RemoteWorker:
    """Stands for one job's place at the farm, as `WorkerProcess` does for a worker here."""

    def __init__(self, farm: Farm, environment: Digest) -> None:
        self._farm = farm
        self.environment = environment

    async def compile(self, job: Job, *, on_phase: Callable[[str], None], sink: BlobSink) -> CompileResult:
        """Have the job done, as `WorkerProcess.compile`; raise `FarmAwayError` where it is to be done here."""
        return await self._farm.compile(job, on_phase=on_phase, sink=sink)

    async def end(self, *, grace_s: float) -> None:
        """Do nothing: the worker at the other end is its node's."""


class Farm:
    """Hands jobs to the farm's process, and keeps that process running."""

    def __init__(
        self,
        config: FarmConfig,
        pool: PoolConfig,
        *,
        log: Path,
        open_link: Callable[[Path], Awaitable[Link]] = Link.open,
    ) -> None:
        """Workers there get the limits of `pool`; what the farm's process says for people goes into `log`."""
        self._open_link = open_link
        self._config = config
        self._pool = pool
        self._log = log
        self._link: Link | None = None
        self._slots: dict[Digest, int] = {}
        self._taken: dict[Digest, int] = {}
        self._waiting: dict[Digest, list[tuple[bool, int, str, asyncio.Future[RemoteWorker]]]] = {}
        self._jobs: dict[int, asyncio.Queue[Mapping[str, Any]]] = {}
        self._numbers = itertools.count(1)
        self._said = ""
        self._reason = ""
        self._closed = False

    @property
    def wait_s(self) -> float:
        """How long a job may wait there before it is also tried here."""
        return self._config.wait_s

    @property
    def pid(self) -> int:
        """The number of the farm's process; 0 where none runs."""
        return self._link.pid if self._link else 0

    def offers(self, job: Job) -> bool:
        """Return whether somebody there compiles for the job's environment."""
        return not self._closed and job.kind == "graphs" and self._slots.get(job.environment, 0) > 0

    async def take(self, job: Job) -> RemoteWorker:
        """Wait for a place; raise `FarmAwayError` where there is none any more, `DrainingError` after `hand_back`."""
        if not self.offers(job):
            raise DrainingError if self._closed else FarmAwayError("no worker of the farm has this environment")
        granted: asyncio.Future[RemoteWorker] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(job.environment, [])
        heapq.heappush(queue, (job.is_background, next(self._numbers), job.key, granted))
        self._dispatch()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and not granted.exception():
                self.give_back(granted.result())
            raise

    def hurry(self, job: Job) -> None:
        """Let the job of this graph, if it waits, go before those that nobody waits for."""
        queue = self._waiting.get(job.environment, [])
        queue[:] = [(background and key != job.key, number, key, end) for background, number, key, end in queue]
        heapq.heapify(queue)

    def give_back(self, worker: RemoteWorker) -> None:
        """Free a place that `take` has given."""
        self._taken[worker.environment] -= 1
        self._dispatch()

    async def compile(self, job: Job, *, on_phase: Callable[[str], None], sink: BlobSink) -> CompileResult:
        """Have a job done there; raise as `RemoteWorker.compile`."""
        if (link := self._link) is None:
            raise FarmAwayError(self._reason or "the farm has gone")
        number, started = next(self._numbers), time.monotonic()
        heard = self._jobs[number] = asyncio.Queue()
        answered = False
        try:
            await link.send(_order(job, number))
            result = await self._follow(number, heard, on_phase=on_phase, sink=sink)
            answered = True
            return CompileResult(
                manifest=result[0].manifest,
                blobs=result[1],
                facts=result[0].facts,
                seconds=time.monotonic() - started,
            )
        except JobRefusedError:
            answered = True
            raise
        except WireError as error:
            raise WorkerLostError(f"the farm handed over something else: {error}") from error
        finally:
            del self._jobs[number]
            if not answered:
                link.send_soon({"type": "leave", "id": number})

    def hand_back(self) -> None:
        """Take no more jobs, and fail those that wait; those that run go on."""
        self._closed = True
        self._fail_waiting(DrainingError())

    async def run(self) -> None:
        """Keep the farm's process running until cancelled, with growing pauses where it does not last."""
        pause_s = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            self._reason = ""
            try:
                await self._run_once()
            except (OSError, WireError) as error:
                self._reason = self._reason or str(error)
            self._forget()
            pause_s = _FIRST_PAUSE_S if time.monotonic() - began > _HEALTHY_S else min(pause_s * 2, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)

    async def _run_once(self) -> None:
        link = await self._open_link(self._log)
        try:
            await link.send(self._settings())
            self._link = link
            await link.read(self._hear)
        finally:
            self._link = None
            await asyncio.shield(link.close())

    async def _follow(
        self,
        number: int,
        heard: asyncio.Queue[Mapping[str, Any]],
        *,
        on_phase: Callable[[str], None],
        sink: BlobSink,
    ) -> tuple[Done, dict[Digest, int]]:
        """Return what the job ends in; hear of it often enough, or raise `FarmAwayError`."""
        host, received, begun = "", dict[Digest, int](), False
        while True:
            limit_s = self._config.silence_s if begun else self._config.wait_s
            try:
                async with asyncio.timeout(limit_s):
                    message = await heard.get()
            except TimeoutError:
                state = "nothing was heard of it" if begun else "nobody there has begun"
                raise FarmAwayError(f"{state} for {limit_s:.0f} s") from None
            match message["type"]:
                case "begun":
                    begun, host = True, _host(message)
                    continue
                case "progress":
                    begun, host = True, _host(message) or host
                    # Said before our worker there has begun, and again while it works.
                    phase = "starting" if message.get("phase") == "starting" else read_progress(message, number).phase
                    on_phase(f"{phase} on {host}")
                    continue
                case "away":
                    raise FarmAwayError(_reason(message))
                case "lost":
                    raise WorkerLostError(_reason(message))
            match read_reply(message, number):
                case BlobFrame(sha256, data):
                    received[sha256] = len(data)
                    if sum(received.values()) > MAX_ARTIFACT_BYTES:
                        raise MalformedError(f"a node sent more than {MAX_ARTIFACT_BYTES} bytes")
                    await asyncio.to_thread(sink, sha256, data)
                case Done() as done:
                    return done, received
                case RefusedFrame(reason, text, fields):
                    raise JobRefusedError(reason, text, fields)
                case other:
                    raise MalformedError(f"a node answered with {type(other).__name__}")

    def _hear(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "farm":
            self._learn(message)
            return
        number = message.get("id")
        if not isinstance(number, int):
            raise MalformedError("the farm's process speaks of no job")
        if (heard := self._jobs.get(number)) is not None:  # none where it has been left
            heard.put_nowait(message)

    def _learn(self, message: Mapping[str, Any]) -> None:
        """Take in who is there; raise `MalformedError` where it is no summary."""
        told = message.get("environments")
        if not isinstance(told, dict) or len(told) > _MAX_ENVIRONMENTS:
            raise MalformedError("the farm's environments are no map of digests to numbers")
        slots: dict[Digest, int] = {}
        for environment, count in told.items():
            if not isinstance(count, int) or count < 0:
                raise MalformedError("the farm's environments are no map of digests to numbers")
            slots[parse_digest(environment)] = count
        self._slots = slots
        self._reason = _reason(message)
        offered = ", ".join(f"{count} at once for environment {name[:12]}" for name, count in sorted(slots.items()))
        if offered:
            self._say(logging.INFO, f"{self._config.address} compiles {offered}")
        elif self._reason:
            self._say(logging.WARNING, f"{self._config.address} compiles nothing, this machine does: {self._reason}")
        for environment in self._waiting.keys() - slots.keys():
            self._fail_waiting(FarmAwayError("no worker of the farm has this environment any more"), environment)
        self._dispatch()

    def _forget(self) -> None:
        """Give everything back: the process has ended."""
        reason = self._reason or "its process has ended"
        self._slots = {}
        self._say(logging.WARNING, f"{self._config.address} compiles nothing, this machine does: {reason}")
        for number, heard in self._jobs.items():
            heard.put_nowait({"type": "away", "id": number, "reason": reason})
        self._fail_waiting(FarmAwayError(reason))

    def _say(self, level: int, text: str) -> None:
        """Log what has changed, once."""
        if text != self._said:
            self._said = text
            logger.log(level, "the farm at %s", text)

    def _dispatch(self) -> None:
        for environment, queue in self._waiting.items():
            while queue and self._taken.get(environment, 0) < self._slots.get(environment, 0):
                *_, granted = heapq.heappop(queue)
                if not granted.done():
                    self._taken[environment] = self._taken.get(environment, 0) + 1
                    granted.set_result(RemoteWorker(self, environment))

    def _fail_waiting(self, error: Exception, environment: Digest | None = None) -> None:
        for name, queue in self._waiting.items():
            if environment in (None, name):
                for *_, granted in queue:
                    if not granted.done():
                        granted.set_exception(error)
                queue.clear()

    def _settings(self) -> dict[str, Any]:
        pool, config = self._pool, self._config
        limits = {
            "command": list(pool.command),
            "wall_s": pool.wall_s,
            "cpu_s": pool.cpu_s,
            "start_s": pool.start_s,
            "niceness": pool.niceness,
            "sandbox": pool.sandbox,
        }
        if pool.memory_bytes != default_memory_bytes():  # half of a node's memory is another number than half of ours
            limits["memory_bytes"] = pool.memory_bytes
        files = {"ca": config.ca, "certificate": config.certificate, "key": config.key}
        return {"type": "settings", "address": config.address, **files, "limits": limits}


def read_progress(message: Mapping[str, Any], number: int) -> Progress:
    """Return a phase that a node is in; raise `MalformedError` where it is none."""
    reply = read_reply(message, number)
    if not isinstance(reply, Progress):
        raise MalformedError("a node's progress is none")
    return reply


def _order(job: Job, number: int) -> dict[str, Any]:
    return {
        "type": "job",
        "id": number,
        "environment": job.environment,
        "key": job.key,
        "graph": job.graph,
        "replay": job.replay,
        "ahead": job.ahead,
    }


def _host(message: Mapping[str, Any]) -> str:
    host = message.get("host")
    return host[:64] if isinstance(host, str) and host.isprintable() else ""


def _reason(message: Mapping[str, Any]) -> str:
    reason = message.get("reason")
    return reason[:1000] if isinstance(reason, str) else ""
