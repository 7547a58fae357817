"""The daemon's state now, put together from its rooms for an operator."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from compiler_daemon import metrics
from compiler_daemon.compiles.single_flight import SingleFlight
from compiler_daemon.jobs import QuarantinedView, WorkerView
from compiler_daemon.store import Store, StoreError
from compiler_daemon.workers.pool import Pool

if TYPE_CHECKING:
    from compiler_daemon.tier.tier import TierView
    from compiler_daemon.tier.tiers import Tiers

logger = logging.getLogger(__name__)

_SAMPLE_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StatusView:
    """Holds the daemon's state at one moment, as an operator sees it."""

    pid: int
    uptime_s: float
    address: str
    directory: str
    draining: bool
    workers: Sequence[WorkerView]
    queued: int
    artifacts: int
    blobs: int
    store_bytes: int
    store_max_bytes: int
    rss_bytes: int
    counters: Mapping[str, int]
    quarantined: Sequence[QuarantinedView]
    sandbox: str
    """Whether workers are confined, in words."""
    tiers: Sequence[TierView] = ()
    """What is shared with other daemons, in the order in which it is asked."""


class DaemonStatus:
    """Collects the daemon's state from its rooms when an operator asks."""

    def __init__(
        self,
        *,
        store: Store,
        pool: Pool,
        single_flight: SingleFlight,
        counters: metrics.Counters,
        directory: Path,
        tiers: Tiers | None = None,
    ) -> None:
        self._store = store
        self._pool = pool
        self._single_flight = single_flight
        self._counters = counters
        self._directory = directory
        self._tiers = tiers
        self._started = time.monotonic()
        self._process = psutil.Process()
        self._sampled = -math.inf
        self._counting = asyncio.Lock()
        """Held while counts are on their way into the store: they are in neither place then, and totals would fall."""
        self.address = ""
        self.draining = False

    async def snapshot(self) -> StatusView:
        """Return the state as it is now."""
        usage = await asyncio.to_thread(self._store.usage)
        counters = await self._counts()
        return StatusView(
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started,
            address=self.address,
            directory=str(self._directory),
            draining=self.draining,
            workers=await self._pool.views(),
            queued=self._pool.queued,
            artifacts=usage.artifacts,
            blobs=usage.blobs,
            store_bytes=usage.bytes,
            store_max_bytes=usage.max_bytes,
            rss_bytes=self._process.memory_info().rss,
            counters=dict(counters),
            quarantined=self._single_flight.quarantined(),
            sandbox=self._pool.sandbox(),
            tiers=self._tiers.views() if self._tiers is not None else (),
        )

    async def run(self, *, every_s: float) -> None:
        """Hand the counts to the store until cancelled, so that a kill loses little of them; once a minute a sample."""
        while True:
            if time.monotonic() - self._sampled >= _SAMPLE_S:
                self._sampled = time.monotonic()
                await self.sample()
            await asyncio.sleep(every_s)
            await self.save()

    async def save(self) -> None:
        """Hand the counts to the store; one that cannot take them now gets them next time."""
        async with self._counting:
            if taken := self._counters.take():
                try:
                    await asyncio.to_thread(self._store.add_counts, taken)
                except StoreError as error:
                    self._counters.give_back(taken)
                    self._counters.add(metrics.STORE_UNWRITABLE)
                    logger.debug("the counters wait: %s", error)

    async def sample(self) -> None:
        """Keep the totals of this minute for the curves; a store that cannot take them leaves a gap."""
        try:
            counts = await self._counts()
            usage = await asyncio.to_thread(self._store.usage)
            figures = {name: counts[name] for name in metrics.SAMPLED if counts[name]}
            figures |= {metrics.STORE_BYTES: usage.bytes, metrics.STORE_ARTIFACTS: usage.artifacts}
            await asyncio.to_thread(self._store.put_sample, figures, now=time.time())
        except StoreError as error:
            logger.debug("no sample this minute: %s", error)

    async def _counts(self) -> Counter[str]:
        async with self._counting:
            counts = Counter(await asyncio.to_thread(self._store.counts))
            counts.update(self._counters.pending())
        return counts
