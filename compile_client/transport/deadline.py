"""One deadline over several waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from compile_client.errors import OverdueError

Clock = Callable[[], float]
"""Seconds that only grow, as of `time.monotonic`."""


class Deadline:
    """Ends all waiting for one answer at one moment, which all steps towards the answer share."""

    def __init__(self, limit_s: float, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + limit_s
        self._limit_s = limit_s

    def remaining(self) -> float:
        """Return the seconds left, never less than zero."""
        return max(0.0, self._end - self._clock())

    def within(self, limit_s: float) -> float:
        """Return how long a step of at most `limit_s` may take now; raise `OverdueError` where no time is left."""
        remaining = self.remaining()
        if remaining <= 0:
            raise OverdueError(f"the {self._limit_s:g} s for this graph are over")
        return min(limit_s, remaining)
