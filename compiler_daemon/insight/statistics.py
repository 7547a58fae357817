"""Figures since the store was made, and of each program: put together from counters, reports and the store's rows.

All of it survives restarts and kill -9, but for what was counted in the last second.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from compiler_daemon import metrics
from compiler_daemon.insight.runs import ProgramFigures, RunLog, RunSummary
from compiler_daemon.store import ArtifactRow, Store

_SLOWEST = 10
_LAST_RUNS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class TierFigures:
    """Holds what was shared with other daemons."""

    hits: int
    bytes_read: int
    written: int
    bytes_written: int
    adopted: int
    """Compiled here, and another node's was used."""
    merged: int
    """Compiles that another node did while this one waited."""
    duplicates: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Holds the figures of `stats`: what the daemon has done for which program."""

    counters: Mapping[str, int]
    hits: int
    misses: int
    merged: int
    """Requests that joined a compile under way."""
    compiled: int
    published: int
    seconds_saved: float
    seconds_spent: float
    """On workers."""
    seconds_spent_here: float
    """In trainers, as far as they reported."""
    misses_by_reason: Mapping[str, int]
    here_by_reason: Mapping[str, int]
    """Why torch compiled in trainers."""
    fallbacks_by_reason: Mapping[str, int]
    refused_by_reason: Mapping[str, int]
    runs: int
    artifacts: int
    store_bytes: int
    store_max_bytes: int
    slowest: Sequence[ArtifactRow]
    programs: Sequence[ProgramFigures]
    last_runs: Sequence[RunSummary]
    tiers: TierFigures | None = None
    """None where nothing was ever shared."""


class StatisticsCollector:
    """Collects the figures of `stats` from the log of runs and the store."""

    def __init__(self, store: Store, log: RunLog, *, counters: metrics.Counters) -> None:
        self._store = store
        self._log = log
        self._counters = counters

    async def collect(self) -> Statistics:
        """Return the figures as they are now; takes milliseconds, however full the store is."""
        return await asyncio.to_thread(self.collect_now)

    def collect_now(self) -> Statistics:
        """Return the same where nothing else is to go on meanwhile."""
        counted: Counter[str] = Counter(self._store.counts())
        counted.update(self._counters.pending())
        programs = self._log.programs()
        usage = self._store.usage()
        return Statistics(
            counters=counted,
            hits=counted[metrics.LOOKUP_HITS],
            misses=counted[metrics.LOOKUP_MISSES],
            merged=counted[metrics.COMPILES_JOINED],
            compiled=counted[metrics.COMPILES_DONE],
            published=counted[metrics.ARTIFACTS_PUBLISHED],
            seconds_saved=counted[metrics.SECONDS_SAVED],
            seconds_spent=counted[metrics.COMPILE_SECONDS],
            seconds_spent_here=sum(program.spent_s for program in programs),
            misses_by_reason=_parts(counted, metrics.GRAPHS_MISSED),
            here_by_reason=_summed(program.here for program in programs),
            fallbacks_by_reason=_summed(program.fallbacks for program in programs),
            refused_by_reason=_parts(counted, metrics.COMPILES_REFUSED),
            runs=sum(program.runs for program in programs),
            artifacts=usage.artifacts,
            store_bytes=usage.bytes,
            store_max_bytes=usage.max_bytes,
            slowest=self._store.slowest_artifacts(_SLOWEST),
            programs=programs,
            last_runs=self._log.last_runs(_LAST_RUNS),
            tiers=_tiers(counted),
        )


def _tiers(counted: Counter[str]) -> TierFigures | None:
    if not any(counted[name] for name in (*metrics.OF_ONE_TIER, metrics.TIER_MERGED, metrics.TIER_DUPLICATES)):
        return None
    return TierFigures(
        hits=counted[metrics.TIER_HITS],
        bytes_read=counted[metrics.TIER_BYTES_READ],
        written=counted[metrics.TIER_WRITTEN],
        bytes_written=counted[metrics.TIER_BYTES_WRITTEN],
        adopted=counted[metrics.TIER_ADOPTED],
        merged=counted[metrics.TIER_MERGED],
        duplicates=counted[metrics.TIER_DUPLICATES],
    )


def _parts(counted: Mapping[str, int], name: str) -> dict[str, int]:
    """Return the counters below a name: `compiles_refused.limit` as `limit`."""
    return {full.removeprefix(f"{name}."): n for full, n in sorted(counted.items()) if full.startswith(f"{name}.")}


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for part in counts:
        total.update(part)
    return dict(sorted(total.items()))
