"""Whose turn it is to compile a graph, where several nodes share a tier: one at a time, and all have what it makes.

Guarantees: a turn that is ours ends with the block: its lease is released once the artifact is in the tier, or at once
where there is none. What the tier does not do costs no compile: then every node compiles for itself.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Collection
from dataclasses import dataclass
from typing import get_args

from compile_wire.digest import Digest
from compile_wire.plain import plain
from compiler_daemon import metrics
from compiler_daemon.compiles.cache import Cache
from compiler_daemon.errors import JobRefusedError, RefusalReason, TierError, WorkerLostError
from compiler_daemon.jobs import Entry, Job
from compiler_daemon.tier.header import host_text
from compiler_daemon.tier.leases import Refused, Waiting
from compiler_daemon.tier.tiers import Tiers

logger = logging.getLogger(__name__)

_SAME_EVERYWHERE: frozenset[RefusalReason] = frozenset(
    {"KEY_MISMATCH", "UNSUPPORTED", "COMPILE_ERROR", "UNCACHEABLE", "TRACED_AGAIN"}
)
"""Refusals that another node of the same environment would come to as well."""

_LONGEST_S = 7200.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """Says whether the compile is ours, or who has it."""

    is_ours: bool
    found: Entry | None = None
    """Ours, and another node was faster: it need not be compiled."""
    host: str = ""
    expected_s: float = 0.0
    running_s: float = 0.0
    """How long the other node has been at it, by its clock and ours: for people; 0 where that cannot be."""
    look_again_s: float = 0.0


class Turns:
    """Asks the tiers whose turn it is."""

    def __init__(self, tiers: Tiers, *, cache: Cache, counters: metrics.Counters) -> None:
        self._tiers = tiers
        self._cache = cache
        self._counters = counters

    @contextlib.asynccontextmanager
    async def turn(self, job: Job, tried: Collection[Digest], expected_s: float) -> AsyncIterator[Turn]:
        """Take the turn, if it can be had, for as long as the block lasts.

        Raises `JobRefusedError` where another node has tried the graph and was refused. A refusal that leaves the
        block, or the death of a worker, is told to the other nodes.
        """
        taken = await self._tiers.take(job.environment, job.key, expected_s)
        if isinstance(taken, Refused):
            self._counters.add(metrics.TIER_REFUSED)
            raise _refusal(taken)
        if isinstance(taken, Waiting):
            yield Turn(
                is_ours=False,
                host=host_text(taken.host),  # whoever can write to the tier may have written anything
                expected_s=max(0.0, taken.expected_s),
                running_s=_running_s(taken.since),
                look_again_s=taken.look_again_s,
            )
            return
        if taken is None:
            yield Turn(is_ours=True)
            return
        compiled = False
        try:
            # Whoever had the lease before may have finished between our look into the tier and now.
            found = await self._cache.fetch(job.environment, job.key, tried)
            yield Turn(is_ours=True, found=found)
            compiled = True
            if taken.lost and found is None:
                self._counters.add(metrics.TIER_DUPLICATES)
        except JobRefusedError as error:
            if error.reason in _SAME_EVERYWHERE:
                await self._tell(taken.refuse(f"{error.reason}: {error}"))
            raise
        except WorkerLostError as error:
            await self._tell(taken.worker_died(str(error)))
            raise
        finally:
            await self._tell(taken.release(compiled=compiled))

    def left(self, job: Job) -> None:
        """Note that nobody here waits for the compile any more."""
        self._tiers.left(job.environment, job.key)

    async def _tell(self, call: Awaitable[object]) -> None:
        try:
            await call
        except TierError as error:
            logger.info("a lease could not be given back, it runs out by itself: %s", error)


def _running_s(since: float) -> float:
    """Return how long ago that was, unless the clocks of the two nodes disagree by more than a compile can take."""
    passed = time.time() - since
    return passed if 0 < passed < _LONGEST_S else 0.0


def _refusal(refused: Refused) -> JobRefusedError:
    """Return the refusal that another node has left, in its words."""
    reason, colon, message = plain(refused.reason).partition(": ")
    for known in get_args(RefusalReason):
        if colon and reason == known and known in _SAME_EVERYWHERE:
            return JobRefusedError(known, f"{message} (another node has tried)")
    return JobRefusedError("WORKER_LOST", f"{plain(refused.reason)} (counted over all nodes)")
