"""How long a lookup waits for the tier before it is answered as a miss, while the read goes on.

A trainer gives its daemon 2 s for a lookup and leaves it alone for a while after two that took longer: a slow tier must
never cost a trainer its own daemon. So a lookup waits 300 ms, and where reads of a tier that is far away take longer as
a rule, as long as most of the recent ones took, up to a second.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

Clock = Callable[[], float]
"""Returns monotonic seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetConfig:
    """Configures how long a lookup waits."""

    least_s: float = 0.3
    most_s: float = 1.0
    """Half of what a trainer waits for its daemon: the rest is the daemon's own work, on a busy machine."""
    quantile: float = 0.95
    reads: int = 64
    """How many reads are remembered at most."""
    enough: int = 8
    """Fewer say nothing of what is usual."""
    recent_s: float = 600.0
    """What was measured before does not count."""


class ReadBudget:
    """Learns from the reads of a tier how long a lookup waits for one."""

    def __init__(self, config: BudgetConfig | None = None, clock: Clock = time.monotonic) -> None:
        self._config = config or BudgetConfig()
        self._clock = clock
        self._reads: deque[tuple[float, float]] = deque(maxlen=self._config.reads)

    def begin(self) -> Reading:
        """Return a read that begins now, with the budget that it has."""
        return Reading(self, self.seconds(), self._clock)

    def note(self, seconds: float) -> None:
        """Note how long a read took that brought an answer, hit or miss."""
        self._reads.append((self._clock(), seconds))

    def seconds(self) -> float:
        """Return how long a lookup waits."""
        since = self._clock() - self._config.recent_s
        while self._reads and self._reads[0][0] < since:
            self._reads.popleft()
        if len(self._reads) < self._config.enough:
            return self._config.least_s
        taken = sorted(seconds for _, seconds in self._reads)
        usual = taken[math.ceil(self._config.quantile * len(taken)) - 1]
        return min(max(usual, self._config.least_s), self._config.most_s)


class Reading:
    """One read that is under way."""

    def __init__(self, budget: ReadBudget, budget_s: float, clock: Clock) -> None:
        self.budget_s = budget_s
        self._budget = budget
        self._clock = clock
        self._began = clock()

    def left_s(self) -> float:
        """Return how long the lookup still waits; 0 where it does no longer."""
        return max(0.0, self._began + self.budget_s - self._clock())

    def answered(self) -> None:
        """Note the answer, also one that came when nobody waited: so the budget grows to what this tier needs."""
        self._budget.note(self._clock() - self._began)
