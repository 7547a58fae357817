"""Has torch's header compiled for workers to come, while nobody needs anything: once for an environment.

It is made by a worker of its own that never gets a job. What workers with jobs have made is not taken: it would go into
everybody's kernels.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from dataclasses import replace
from pathlib import Path

from compile_wire.digest import Digest
from compile_wire.errors import WireError
from compiler_daemon.config import PoolConfig
from compiler_daemon.errors import WorkerLostError
from compiler_daemon.jobs import WorkerHello
from compiler_daemon.worker.kept_headers import is_kept
from compiler_daemon.workers.process import WorkerProcess, WorkerSlot

logger = logging.getLogger(__name__)


class HeaderMaker:
    """Has torch's header compiled, by at most one worker at a time."""

    def __init__(self, config: PoolConfig, place: Path) -> None:
        """`place` is where headers are kept."""
        self._config = config
        self._place = place
        self._done: set[Digest] = set()
        self._worker: WorkerProcess | None = None
        self._closed = False

    def wants(self, hello: WorkerHello) -> bool:
        """Return whether a header should be made for workers like the one that said this."""
        if self._worker is not None or hello.environment in self._done:
            return False
        self._done.add(hello.environment)
        return not is_kept(self._place, hello.environment)

    async def make(self, slot: WorkerSlot, like: WorkerHello) -> None:
        """Make it; whatever goes wrong, workers go on making their own."""
        if self._closed:
            return
        self._worker = worker = WorkerProcess(self._config, replace(slot, log=slot.log.with_name("headers.log")))
        try:
            known = (like.environment, like.facts) if like.facts else None
            await worker.start(known, niceness=self._config.niceness, waited_for=False)
            files = await worker.keep_headers()
            logger.info("%d files of compiled headers are kept for environment %s", files, like.environment[:12])
        except (WorkerLostError, WireError, OSError) as error:
            logger.info("no header was compiled for workers to come: %s", error)
        finally:
            await asyncio.shield(self._end())

    async def close(self) -> None:
        """Make none any more, and end the worker that does."""
        self._closed = True
        await self._end()

    async def _end(self) -> None:
        if (worker := self._worker) is not None:
            await worker.end(grace_s=0)
            self._worker = None
            await asyncio.to_thread(shutil.rmtree, worker.slot.scratch, ignore_errors=True)
