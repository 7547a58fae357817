"""What is told of the graphs of this process, and what is answered about them: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from compile_wire.digest import Digest

Outcome = Literal["hit_local", "hit", "compiled_by_daemon", "compiled_here"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphNote:
    """What became of one graph."""

    number: int
    key: str
    """Under which the daemon files it; empty where torch has none."""
    outcome: Outcome
    reason: str = ""
    """Compiled here: why, in one word, and then in words."""
    message: str = ""
    tried: int = 0
    """Artifacts of the daemon's whose guards did not hold."""
    waited_s: float = 0.0
    saved_s: float = 0.0
    spent_s: float = 0.0
    graph: Digest | None = None
    begun: float
    """By the monotonic clock."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPart:
    """A piece of a run's record, as it is sent."""

    run: str
    age_s: float
    graphs: tuple[GraphNote, ...]
    fallbacks: Mapping[str, int]
    unreported: int
    ended: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class ExplainedGraph:
    """What the daemon tells of a graph that missed."""

    number: int
    kind: str
    """"graph", "kernel" or "tuning"."""
    name: str
    """A kernel's; empty where it is not known."""
    key: str
    outcome: Outcome
    reason: str
    message: str
    sentence: str
    nearest: str
    """The program of the nearest known request; empty where there is none."""
    differences: tuple[str, ...]
    more: int
