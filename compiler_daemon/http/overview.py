"""What the first page shows, gathered from the daemon's rooms."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compiler_daemon import metrics
from compiler_daemon.compiles.single_flight import SingleFlight
from compiler_daemon.http.time_series import Column, Span, columns
from compiler_daemon.insight.runs import ProgramFigures, RunLog
from compiler_daemon.insight.status import DaemonStatus, StatusView
from compiler_daemon.jobs import FlightView
from compiler_daemon.store import ArtifactRow, Store

_SLOWEST = 12
_PROGRAMS = 12
_FLIGHTS = 50

_CAUSES = {
    "new": "never seen before",
    "environment": "there only for another environment",
    "guards": "there, but no artifact's guards held",
    "gone": "evicted, removed or damaged",
}
_REFUSALS = {
    "key_mismatch": "refused: a worker arrived at another key",
    "unsupported": "refused: the graph cannot be rebuilt from data",
    "environment": "refused: no worker runs in the trainer's environment",
    "compile_error": "refused: torch raised while compiling",
    "worker_lost": "refused: the graph has killed workers",
    "uncacheable": "refused: torch does not cache this graph",
    "draining": "refused: the daemon was stopping",
    "limit": "refused: over the limit of time or memory",
    "traced_again": "given up by torch, which traced the program once more",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How often misses had one cause, or ended in one way."""

    words: str
    count: int
    share: float
    """Of the most frequent one, for a bar."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """Holds the figures of the first page."""

    now: float
    status: StatusView
    flights: Sequence[FlightView]
    more_flights: int
    slowest: Sequence[ArtifactRow]
    programs: Sequence[ProgramFigures]
    causes: Sequence[Outcome]
    outcomes: Sequence[Outcome]
    span: Span
    columns: Sequence[Column]

    @property
    def hits(self) -> int:
        """The lookups in the span that found something."""
        return sum(column.hits for column in self.columns)

    @property
    def lookups(self) -> int:
        """The lookups in the span."""
        return sum(column.lookups for column in self.columns)

    @property
    def rate(self) -> float | None:
        """The share of hits among the lookups in the span; None where there were none."""
        return self.hits / self.lookups if self.lookups else None

    @property
    def saved_s(self) -> int:
        """The compile time saved in the span, in seconds."""
        return sum(column.saved_s for column in self.columns)

    @property
    def saved_ever_s(self) -> int:
        """The compile time saved since the store was made, in seconds."""
        return self.status.counters.get(metrics.SECONDS_SAVED, 0)

    @property
    def damaged_files(self) -> int:
        """The files found damaged and set aside since the store was made."""
        return self.status.counters.get("quarantined", 0)

    @property
    def is_new(self) -> bool:
        """Whether nobody has asked for anything yet."""
        counters = self.status.counters
        return not (counters.get(metrics.LOOKUPS) or self.status.artifacts or self.flights)


async def look(status: DaemonStatus, single_flight: SingleFlight, store: Store, runs: RunLog, span: Span) -> Overview:
    """Collect the figures of a span, and what is under way now."""
    now = time.time()
    view = await status.snapshot()
    slowest, programs, samples = await asyncio.to_thread(
        lambda: (
            store.slowest_artifacts(_SLOWEST),
            runs.programs(),
            store.samples(now - span.seconds - span.column_s, step=span.step),
        )
    )
    under_way = single_flight.views()
    return Overview(
        now=now,
        status=view,
        flights=under_way[:_FLIGHTS],
        more_flights=max(0, len(under_way) - _FLIGHTS),
        slowest=slowest,
        programs=sorted(programs, key=lambda figures: -figures.seen)[:_PROGRAMS],
        causes=_causes(view.counters),
        outcomes=_outcomes(view.counters),
        span=span,
        columns=columns(samples, view.counters, span=span, now=now),
    )


def _outcomes(counters: Mapping[str, int]) -> list[Outcome]:
    counted = {
        "compiled by a worker": counters.get(metrics.COMPILES_DONE, 0),
        "waited for a compile that was under way": counters.get(metrics.COMPILES_JOINED, 0),
        "stored by the time it was asked for": counters.get(metrics.COMPILES_FOUND, 0),
        "compiled, but the result could not be kept": counters.get(metrics.COMPILES_FAILED, 0),
        "compiled by a trainer and handed in": counters.get(metrics.ARTIFACTS_PUBLISHED, 0),
    }
    prefix = f"{metrics.COMPILES_REFUSED}."
    for name, number in counters.items():
        if name.startswith(prefix):
            reason = name.removeprefix(prefix)
            counted[_REFUSALS.get(reason, f"refused: {reason}")] = number
    return _ranked(counted)


def _causes(counters: Mapping[str, int]) -> list[Outcome]:
    prefix = f"{metrics.GRAPHS_MISSED}."
    counted = {name.removeprefix(prefix): number for name, number in counters.items() if name.startswith(prefix)}
    return _ranked({_CAUSES.get(cause, cause): number for cause, number in counted.items()})


def _ranked(counted: Mapping[str, int]) -> list[Outcome]:
    found = sorted(((number, name) for name, number in counted.items() if number), key=lambda pair: (-pair[0], pair[1]))
    most = found[0][0] if found else 1
    return [Outcome(words=name, count=number, share=number / most) for number, name in found]
