"""Kept graphs compiled again, for whatever torch a worker has now.

A graph is first asked what its key is here; then it is an ordinary compile under that key: one however many ask, the
store looked at first, limits and quarantine as always. Where the worker's environment is the one that the graph was
asked for in, its key is known, and coming out with another is a refusal.

The key of a Triton kernel is made of source code that does not travel: no worker can compute or prove it. So a kernel
is compiled again under the key that it was kept under, for the Triton that it was kept for, and for no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from compile_wire.digest import Digest
from compile_wire.kernel.environment import is_kernel_environment
from compiler_daemon import metrics
from compiler_daemon.compiles.cache import Cache
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.compiles.single_flight import SingleFlight
from compiler_daemon.errors import DrainingError, EnvironmentUnknownError, JobRefusedError, WorkerLostError
from compiler_daemon.jobs import Entry, Job, QueuedEvent, Refusal, RunningEvent
from compiler_daemon.workers.pool import Pool

_EVENT_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """Says that a graph was compiled again and its artifact is stored."""

    environment: Digest
    key: str
    compiled: bool
    """False where it was stored already."""
    compile_s: float


ReplayEvent = QueuedEvent | RunningEvent | Replayed | Refusal


class Recompiler:
    """Has kept graphs compiled again, and waits for them."""

    def __init__(
        self,
        *,
        cache: Cache,
        environments: Environments,
        single_flight: SingleFlight,
        pool: Pool,
        counters: metrics.Counters,
    ) -> None:
        self._cache = cache
        self._environments = environments
        self._single_flight = single_flight
        self._pool = pool
        self._counters = counters

    async def replay(self, asked: Job) -> AsyncGenerator[ReplayEvent, None]:
        """Yield what happens, at last a `Replayed` or a `Refusal`; `asked` is the graph as it was asked for once.

        Raises `QueueFullError`, and what the store raises where a result cannot be kept.
        """
        keying = asyncio.create_task(self._keyed(asked))
        try:
            while not keying.done():
                yield QueuedEvent(position=0)
                await asyncio.wait({keying}, timeout=_EVENT_S)
        finally:
            keying.cancel()
            await asyncio.gather(keying, return_exceptions=True)
        found = keying.result()
        if isinstance(found, Job) and is_kernel_environment(self._fields(asked)):
            found = await self._provable(found)
        if isinstance(found, Refusal):
            yield found
            return
        if await self._cache.has(found.environment, found.key):
            yield Replayed(environment=found.environment, key=found.key, compiled=False, compile_s=0.0)
            return
        async with aclosing(self._single_flight.compile(found, frozenset())) as events:
            async for event in events:
                if isinstance(event, Entry):
                    self._counters.add(metrics.GRAPHS_REPLAYED)
                    yield Replayed(
                        environment=found.environment, key=found.key, compiled=True, compile_s=event.compile_s
                    )
                else:
                    yield event

    async def _provable(self, kernel: Job) -> Job | Refusal:
        """Return a kernel that somebody who may publish has asked for under this key; refuse any other."""
        if await self._cache.was_asked_for(kernel.environment, kernel.key, kernel.graph):
            return kernel
        return Refusal(
            reason="UNSUPPORTED",
            message="nothing proves a kernel's key: only kernels that this daemon keeps are replayed; "
            "`export` without --graphs takes them elsewhere",
        )

    async def _keyed(self, asked: Job) -> Job | Refusal:
        """Return the job as it is here: with the worker's environment, and the key that its torch gives the graph."""
        job = replace(asked, key="", replay=True)
        try:
            async with self._pool.lease(
                None, self._fields(asked), job.interpreter, on_position=lambda _: None, is_background=True
            ) as worker:
                assert worker.hello is not None
                environment = worker.hello.environment
                await self._environments.note_hello(worker.hello)
                if environment == asked.environment and asked.key:
                    return replace(asked, replay=True)
                if is_kernel_environment(self._fields(asked)):
                    return Refusal(
                        reason="UNSUPPORTED", message="a kernel's key holds its Triton, and is computed in the trainer"
                    )
                return replace(job, environment=environment, key=await worker.key_of(job))
        except JobRefusedError as error:
            return Refusal(reason=error.reason, message=str(error), fields=error.fields)
        except WorkerLostError as error:
            return Refusal(reason="WORKER_LOST", message=f"the worker was lost while it computed the key: {error}")
        except DrainingError:
            return Refusal(reason="DRAINING", message="the daemon stops")

    def _fields(self, asked: Job) -> dict[str, str]:
        """Return the fields of the environment that the job was asked for in; none where nobody knows it any more."""
        try:
            return dict(self._environments.fields(asked.environment))
        except EnvironmentUnknownError:
            return {}
