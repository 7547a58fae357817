"""Runs as plain values. Times are seconds since the epoch, by the daemon's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["hit_local", "hit", "compiled_by_daemon", "compiled_here"]
OUTCOMES: tuple[Outcome, ...] = ("hit_local", "hit", "compiled_by_daemon", "compiled_here")

Cause = Literal["", "new", "environment", "guards", "gone"]
"""Why the store had no artifact: never heard of; only for another environment; none whose guards held; it had once.
Empty where it was not asked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphRecord:
    """One graph of a run."""

    number: int
    key: str
    outcome: Outcome
    reason: str
    message: str
    tried: int
    waited_s: float
    saved_s: float
    spent_s: float
    graph: str
    """Digest of the GraphSpec; empty where there is none."""
    asked: float
    cause: Cause = ""

    @property
    def missed(self) -> bool:
        """Whether it was compiled anywhere."""
        return self.outcome in ("compiled_by_daemon", "compiled_here")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunReport:
    """What a trainer says of its run; a later report of the same run adds to it."""

    run: str
    program: str
    pid: int
    environment: str
    started: float
    graphs: tuple[GraphRecord, ...]
    fallbacks: Mapping[str, int]
    """Since the run began."""
    unreported: int
    ended: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """A run that is remembered."""

    run: str
    program: str
    pid: int
    environment: str
    started: float
    seen: float
    ended: bool
    unreported: int
    fallbacks: Mapping[str, int]
    outcomes: Mapping[str, int]
    waited_s: float
    saved_s: float
    spent_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramFigures:
    """A program's runs together, also those that are remembered no more."""

    program: str
    runs: int
    outcomes: Mapping[str, int]
    waited_s: float
    saved_s: float
    spent_s: float
    seen: float
    misses: Mapping[str, int] = field(default_factory=dict)
    here: Mapping[str, int] = field(default_factory=dict)
    fallbacks: Mapping[str, int] = field(default_factory=dict)
