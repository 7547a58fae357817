"""Figures over time: a sample a minute for a day, an hour for a year; nothing is written while nothing changes.

A sample holds totals, not differences: one that is lost (a kill takes at most the last minute's) makes the curve
coarser and never wrong. Whoever reads takes a figure to stay as it is until the next sample.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from compile_wire.errors import WireError
from compile_wire.packing import pack, unpack
from compiler_daemon.store.index import Index

Step = Literal[60, 3600]
"""Seconds from one sample to the next."""

_KEPT_S: Mapping[Step, int] = {60: 24 * 3600, 3600: 366 * 24 * 3600}
_MAX_FIGURES = 64
_MAX_BYTES = 16 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureSample:
    """Totals as they were at the end of a step that began at `time`, in seconds since the epoch."""

    time: int
    figures: Mapping[str, int]


class Samples:
    """Keeps samples of the daemon's figures over time. Safe to call from any thread."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def put(self, figures: Mapping[str, int], *, now: float) -> bool:
        """Keep totals for the present minute and hour; return whether anything had changed since the last sample."""
        if len(figures) > _MAX_FIGURES:
            raise ValueError(f"a sample has at most {_MAX_FIGURES} figures, not {len(figures)}")
        data = pack(dict(sorted(figures.items())))
        with self._index.reading() as connection:
            last = connection.execute(
                "SELECT figures FROM samples WHERE step = 60 ORDER BY time DESC LIMIT 1"
            ).fetchone()
        if last is not None and last[0] == data:
            return False
        with self._index.writing() as connection:
            for step, kept_s in _KEPT_S.items():
                time = int(now) // step * step
                # Those from the future: the clock was set back.
                connection.execute("DELETE FROM samples WHERE step = ? AND time > ?", (step, time))
                if last is None:
                    # What held before: without it, all that happens in the first hour would count as the past.
                    connection.execute("INSERT OR IGNORE INTO samples VALUES (?, ?, ?)", (step, time - step, data))
                connection.execute("INSERT OR REPLACE INTO samples VALUES (?, ?, ?)", (step, time, data))
                _delete_before(connection, step, time - kept_s)
        return True

    def since(self, start: float, *, step: Step) -> list[FigureSample]:
        """Return samples in order; the first is the last one before `start`, where there is one: what held by then."""
        with self._index.reading() as connection:
            rows = connection.execute(
                """SELECT time, figures FROM samples WHERE step = ? AND time >= coalesce(
                       (SELECT max(time) FROM samples WHERE step = ? AND time <= ?), 0) ORDER BY time""",
                (step, step, int(start)),
            ).fetchall()
        return [sample for time, data in rows if (sample := _read(time, data)) is not None]


def _delete_before(connection: sqlite3.Connection, step: Step, limit: int) -> None:
    """Delete what is before the limit, all but the newest, which says what held at the limit."""
    connection.execute(
        "DELETE FROM samples WHERE step = ? AND time < (SELECT max(time) FROM samples WHERE step = ? AND time <= ?)",
        (step, step, limit),
    )


def _read(time: int, data: bytes) -> FigureSample | None:
    try:
        figures = unpack(data, max_bytes=_MAX_BYTES, what="sample")
    except WireError:
        return None
    if not isinstance(figures, dict) or not all(isinstance(value, int) for value in figures.values()):
        return None
    return FigureSample(time=time, figures=figures)
