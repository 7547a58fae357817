"""Where a graph is compiled: by the farm, where it has a free place in time, else by a worker of this machine.

Guarantees: a graph waits no longer for the farm alone than its limit says; from then on it takes what is free first. A
place that is not used, here or there, is given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from compiler_daemon import metrics
from compiler_daemon.errors import FarmAwayError, JobRefusedError
from compiler_daemon.jobs import CompileResult, Job
from compiler_daemon.workers.pool import Pool
from compiler_daemon.workers.process import BlobSink

if TYPE_CHECKING:
    from compiler_daemon.farm.farm import Farm

logger = logging.getLogger(__name__)


class Worker(Protocol):
    """Compiles one graph: here, or elsewhere."""

    async def compile(self, job: Job, *, on_phase: Callable[[str], None], sink: BlobSink) -> CompileResult:
        """Have the job done, as `WorkerProcess.compile`."""
        ...

    async def end(self, *, grace_s: float) -> None:
        """Have it take no more jobs: it handed over something else than was asked for."""
        ...


class Workplaces:
    """Gives each job a worker."""

    def __init__(self, pool: Pool, farm: Farm | None, *, counters: metrics.Counters) -> None:
        """`farm` is None where all is compiled on this machine."""
        self._pool = pool
        self._farm = farm
        self._counters = counters

    @contextlib.asynccontextmanager
    async def lease(
        self, job: Job, fields: Mapping[str, str], *, only_here: bool, on_position: Callable[[int], None]
    ) -> AsyncIterator[Worker]:
        """Wait for a worker and have it for one job; raises as `Pool.lease`."""
        async with contextlib.AsyncExitStack() as scope:
            remote = None
            if self._farm is not None and not only_here and self._farm.offers(job):
                remote = await self._farm_or_pool(self._farm, job, fields, on_position, scope)
            if remote is None:
                yield await scope.enter_async_context(self._local(job, fields, on_position))
            else:
                yield remote

    def is_remote(self, worker: Worker) -> bool:
        """Return whether the worker is not of this machine."""
        if self._farm is None:
            return False
        from compiler_daemon.farm.farm import RemoteWorker

        return isinstance(worker, RemoteWorker)

    def hurry(self, job: Job) -> None:
        """Note that somebody waits for this job's graph now; a farm's worker that has it already is not told."""
        self._pool.hurry(job.environment, job.key)
        if self._farm is not None:
            self._farm.hurry(job)

    def hand_back(self) -> None:
        """Fail whatever waits for a worker."""
        self._pool.hand_back()
        if self._farm is not None:
            self._farm.hand_back()

    async def _farm_or_pool(
        self,
        farm: Farm,
        job: Job,
        fields: Mapping[str, str],
        on_position: Callable[[int], None],
        scope: contextlib.AsyncExitStack,
    ) -> Worker | None:
        """Return the first worker that is free, the farm's for a time alone; None where only this machine is left."""
        taking = asyncio.ensure_future(farm.take(job))
        leasing: asyncio.Future[Worker] | None = None
        chosen: Worker | None = None
        try:
            await asyncio.wait({taking}, timeout=farm.wait_s)
            if not taking.done():
                leasing = asyncio.ensure_future(scope.enter_async_context(self._local(job, fields, on_position)))
                await asyncio.wait({taking, leasing}, return_when=asyncio.FIRST_COMPLETED)
                if leasing.done():
                    if isinstance(leasing.exception(), JobRefusedError):
                        await asyncio.wait({taking})  # this machine cannot, and the farm may
                    else:
                        chosen = leasing.result()
                        self._counters.add(metrics.FARM_BUSY)
                        return chosen
            try:
                chosen = taking.result()
            except FarmAwayError as error:
                logger.info("%s is compiled here: %s", job.key[:16], error)
                return await leasing if leasing is not None else None
            scope.callback(farm.give_back, taking.result())
            return chosen
        finally:
            await _stop(taking, *(() if leasing is None else (leasing,)))
            if not taking.cancelled() and taking.exception() is None and chosen is not taking.result():
                farm.give_back(taking.result())

    def _local(
        self, job: Job, fields: Mapping[str, str], on_position: Callable[[int], None]
    ) -> contextlib.AbstractAsyncContextManager[Worker]:
        return self._pool.lease(
            job.environment,
            fields,
            job.interpreter,
            on_position=on_position,
            key=job.key,
            is_background=job.is_background,
        )


async def _stop(*waits: asyncio.Future[Any]) -> None:
    """End what is still waited for."""
    for wait in waits:
        if not wait.done():
            wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
