"""Totals over time to columns of a chart: how much of each figure fell into each stretch of time."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compiler_daemon import metrics
from compiler_daemon.store import FigureSample, Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A stretch of time that can be looked at."""

    name: str
    words: str
    column_s: int
    columns: int
    step: Step
    """Of the samples that it is made from."""

    @property
    def seconds(self) -> int:
        """Its length in seconds."""
        return self.column_s * self.columns


SPANS = {
    span.name: span
    for span in (
        Span(name="hour", words="last hour", column_s=60, columns=60, step=60),
        Span(name="day", words="last 24 hours", column_s=1800, columns=48, step=60),
        Span(name="month", words="last 30 days", column_s=43_200, columns=60, step=3600),
        Span(name="year", words="last 52 weeks", column_s=604_800, columns=52, step=3600),
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """What happened from `start` to `end`, in seconds since the epoch."""

    start: float
    end: float
    hits: int
    misses: int
    saved_s: int

    @property
    def lookups(self) -> int:
        """The lookups from `start` to `end`."""
        return self.hits + self.misses

    @property
    def rate(self) -> float | None:
        """Hits among the lookups; None where there were none."""
        return self.hits / self.lookups if self.lookups else None


def columns(samples: Sequence[FigureSample], live: Mapping[str, int], *, span: Span, now: float) -> list[Column]:
    """Return a span's columns, oldest first; the last one is still growing and ends after `now`."""
    end = math.floor(now / span.column_s) * span.column_s + span.column_s
    edges = [end - span.column_s * number for number in range(span.columns, -1, -1)]
    known = [sample for sample in samples if sample.time <= now]
    times = [sample.time for sample in known]

    def total(edge: float, name: str) -> int:
        if edge > now:
            return live.get(name, 0)
        # A sample says what held at the end of its step.
        place = bisect.bisect_left(times, edge)
        if not known:
            return live.get(name, 0)
        return known[max(0, place - 1)].figures.get(name, 0)

    def grown(start: float, end: float, name: str) -> int:
        before, after = total(start, name), total(end, name)
        # Less than before: the index was lost, and counting began anew.
        return after - before if after >= before else after

    return [
        Column(
            start=start,
            end=stop,
            hits=grown(start, stop, metrics.LOOKUP_HITS),
            misses=grown(start, stop, metrics.LOOKUP_MISSES),
            saved_s=grown(start, stop, metrics.SECONDS_SAVED),
        )
        for start, stop in itertools.pairwise(edges)
    ]
