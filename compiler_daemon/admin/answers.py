"""What a daemon answers to `status`, `stats` and `explain`, as values: what people are shown is made of these.

`document` of each is the answer as `--json` prints it. What an older daemon does not say is 0, empty or None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerState:
    """Describes one worker."""

    pid: int = 0
    state: str = ""
    """`starting`, `idle` or `busy`."""
    environment_id: str = ""
    key: str = ""
    elapsed_s: float = 0.0
    jobs_done: int = 0
    rss_bytes: int = 0

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        return cls(**_named(cls, document))


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedGraph:
    """Describes a graph that is refused for a while, because it has killed workers."""

    key: str = ""
    reason: str = ""
    left_s: float = 0.0

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        return cls(**_named(cls, document))


@dataclass(frozen=True, kw_only=True, slots=True)
class TierCallsState:
    """Describes how reads, or writes, fare with a tier."""

    state: str = ""
    """`closed`, `open` or `half-open`."""
    failures: int = 0
    retry_in_s: float = 0.0
    reason: str = ""

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        return cls(**_named(cls, document))


@dataclass(frozen=True, kw_only=True, slots=True)
class TierState:
    """Describes a tier that a daemon shares with others; counts are since the daemon started."""

    address: str = ""
    reads: TierCallsState = TierCallsState()
    writes: TierCallsState = TierCallsState()
    budget_s: float = 0.0
    waiting_bytes: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    rejected: Mapping[str, int] = field(default_factory=dict)
    rejections: tuple[str, ...] = ()

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        parts: dict[str, Any] = {
            "reads": TierCallsState.of(document.get("reads", {})),
            "writes": TierCallsState.of(document.get("writes", {})),
            "rejections": tuple(document.get("rejections", ())),
        }
        return cls(**(_named(cls, document) | parts))


@dataclass(frozen=True, kw_only=True, slots=True)
class DaemonState:
    """Describes what a daemon does now, and what it keeps."""

    server_version: str = ""
    pid: int = 0
    uptime_s: float = 0.0
    address: str = ""
    directory: str = ""
    draining: bool = False
    workers: tuple[WorkerState, ...] = ()
    queued: int = 0
    artifacts: int = 0
    blobs: int = 0
    store_bytes: int = 0
    store_max_bytes: int = 0
    rss_bytes: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    quarantined: tuple[RefusedGraph, ...] = ()
    sandbox: str = ""
    tiers: tuple[TierState, ...] = ()
    document: Document = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        parts: dict[str, Any] = {
            "workers": tuple(map(WorkerState.of, document.get("workers", ()))),
            "quarantined": tuple(map(RefusedGraph.of, document.get("quarantined", ()))),
            "tiers": tuple(map(TierState.of, document.get("tiers", ()))),
            "document": document,
        }
        return cls(**(_named(cls, document) | parts))


@dataclass(frozen=True, kw_only=True, slots=True)
class CompileState:
    """Describes one compile that is under way or waits."""

    key: str = ""
    program: str = ""
    phase: str = ""
    position: int = 0
    """How many are before it, where it waits."""
    waited_s: float = 0.0
    elapsed_s: float = 0.0
    eta_s: float | None = None
    """None where nobody can say when it will be done."""
    waiters: int = 0
    document: Document = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        parts: dict[str, Any] = {
            "document": document,
        }
        return cls(**(_named(cls, document) | parts))


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSummary:
    """Describes one run of a program, as its trainer reported it."""

    run: str = ""
    program: str = ""
    pid: int = 0
    ended: bool = False
    hits_local: int = 0
    hits: int = 0
    compiled_by_daemon: int = 0
    compiled_here: int = 0
    fallbacks: Mapping[str, int] = field(default_factory=dict)
    seconds_saved: float = 0.0

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        return cls(**_named(cls, document))


@dataclass(frozen=True, kw_only=True, slots=True)
class NearestKnown:
    """Names the known request that a missed one is nearest to."""

    key: str = ""
    program: str = ""

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        return cls(**_named(cls, document))


@dataclass(frozen=True, kw_only=True, slots=True)
class MissedGraph:
    """Describes a graph or kernel that missed, and why."""

    number: int = 0
    kind: str = ""
    name: str = ""
    key: str = ""
    outcome: str = ""
    reason: str = ""
    message: str = ""
    sentence: str = ""
    nearest: NearestKnown | None = None
    differences: tuple[str, ...] = ()
    more: int = 0
    """Differences that are not listed."""

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        parts: dict[str, Any] = {
            "nearest": NearestKnown.of(document["nearest"]) if document.get("nearest") else None,
            "differences": tuple(each["text"] for each in document.get("differences", ())),
        }
        return cls(**(_named(cls, document) | parts))


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Says of a run, or of a key, what was missed and why."""

    run: RunSummary | None = None
    """None where a key belongs to no run that is remembered."""
    kernels: RunSummary | None = None
    graphs: tuple[MissedGraph, ...] = ()
    more: int = 0
    """Graphs that are not listed."""
    document: Document = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        parts: dict[str, Any] = {
            "run": RunSummary.of(document["run"]) if document.get("run") else None,
            "kernels": RunSummary.of(document["kernels"]) if document.get("kernels") else None,
            "graphs": tuple(map(MissedGraph.of, document.get("graphs", ()))),
            "document": document,
        }
        return cls(**(_named(cls, document) | parts))


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramFigures:
    """Holds the figures of one program."""

    program: str = ""
    runs: int = 0
    hits_local: int = 0
    hits: int = 0
    compiled_by_daemon: int = 0
    compiled_here: int = 0
    seconds_waited: float = 0.0
    seconds_saved: float = 0.0
    seen: float = 0.0
    """When it was last heard of, in seconds since the epoch."""

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        return cls(**_named(cls, document))


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowGraph:
    """Describes one of the graphs that took longest to compile."""

    key: str = ""
    program: str = ""
    compile_s: float = 0.0
    origin: str = ""
    hits: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        return cls(**_named(cls, document))


@dataclass(frozen=True, kw_only=True, slots=True)
class TierFigures:
    """Holds what was shared with other daemons, since the store was made."""

    hits: int = 0
    bytes_read: int = 0
    written: int = 0
    bytes_written: int = 0
    adopted: int = 0
    """Compiled here, and another node's was used: it was first."""
    merged: int = 0
    """Compiles that another node did while this one waited."""
    duplicates: int = 0

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        return cls(**_named(cls, document))


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Holds the figures since the store was made."""

    hits: int = 0
    misses: int = 0
    merged: int = 0
    compiled: int = 0
    published: int = 0
    seconds_saved: float = 0.0
    seconds_spent: float = 0.0
    seconds_spent_here: float = 0.0
    misses_by_reason: Mapping[str, int] = field(default_factory=dict)
    here_by_reason: Mapping[str, int] = field(default_factory=dict)
    fallbacks_by_reason: Mapping[str, int] = field(default_factory=dict)
    refused_by_reason: Mapping[str, int] = field(default_factory=dict)
    runs: int = 0
    artifacts: int = 0
    store_bytes: int = 0
    store_max_bytes: int = 0
    slowest: tuple[SlowGraph, ...] = ()
    programs: tuple[ProgramFigures, ...] = ()
    tiers: TierFigures | None = None
    """None where nothing was ever shared."""
    document: Document = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, document: Document) -> Self:
        """Read it from an answer."""
        parts: dict[str, Any] = {
            "slowest": tuple(map(SlowGraph.of, document.get("slowest", ()))),
            "programs": tuple(map(ProgramFigures.of, document.get("programs", ()))),
            "tiers": TierFigures.of(document["tiers"]) if document.get("tiers") else None,
            "document": document,
        }
        return cls(**(_named(cls, document) | parts))


def _named(kind: type[Any], document: Document) -> dict[str, Any]:
    """Return those fields of an answer that a kind of value has, by their names."""
    return {one.name: document[one.name] for one in fields(kind) if one.name in document}
