"""How long what is left of a sweep will take: from what has been seen so far, and from the daemon's history before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from compiler_daemon.admin.answers import DaemonState


@dataclass(frozen=True, kw_only=True, slots=True)
class DaemonLoad:
    """Holds what the daemon says about its own speed and load."""

    compiles: int = 0
    """Waiting or under way."""
    workers: int = 1
    compile_s: float = 0.0
    """Mean time of a compile, over all that the store remembers; 0 where there was none."""

    @classmethod
    def of(cls, state: DaemonState) -> Self:
        """Read it from what `status` answers."""
        counters, workers = state.counters, state.workers
        done = counters.get("compiles_done", 0)
        return cls(
            compiles=state.queued + sum(worker.state == "busy" for worker in workers),
            workers=max(1, len(workers)),
            compile_s=counters.get("compile_seconds", 0) / done if done else 0.0,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Counts how far the cells are."""

    waiting: int
    running_s: Sequence[float]
    """How long each running cell has run."""
    done_s: Sequence[float]
    """How long each finished cell took."""
    compiles_per_cell: float
    """Of those finished."""


def remaining_seconds(progress: Progress, load: DaemonLoad, *, jobs: int) -> float | None:
    """Return the larger of what the trainers and what the workers have yet to do; None where nothing is known yet."""
    compiling = load.compile_s * (load.compiles + progress.waiting * progress.compiles_per_cell)
    compiling /= load.workers
    if not progress.done_s:
        # A first estimate, from the daemon's history alone: what has reached its queue so far.
        return compiling or None
    mean = sum(progress.done_s) / len(progress.done_s)
    left = [max(0.0, mean - elapsed) for elapsed in progress.running_s]
    training = max([*left, (sum(left) + mean * progress.waiting) / jobs])
    return max(training, compiling)
