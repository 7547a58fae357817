"""What the store answers with: plain values, no open files or cursors behind them."""

from __future__ import annotations

from dataclasses import dataclass

from compile_wire.digest import Digest


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredArtifact:
    """An artifact whose blobs were all in place when it was looked up."""

    digest: Digest
    """Of the manifest."""
    manifest: bytes
    signature: bytes
    blobs: tuple[Digest, ...]
    """Distinct blobs of the manifest, to pin while they are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactRow:
    """One line of the list of artifacts. Times are seconds since the epoch."""

    digest: Digest
    environment: Digest
    key: str
    graph: str
    bytes: int
    """Of all blobs that a client installs; blobs shared with other artifacts count in each."""
    compile_s: float
    origin: str
    program: str
    created: float
    used: float
    hits: int
    pinned: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredGraph:
    """A request: this graph was asked for under this key. Several keys may share a graph."""

    environment: Digest
    key: str
    graph: Digest
    program: str
    bytes: int
    created: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreUsage:
    """Says how full the store is."""

    artifacts: int
    blobs: int
    bytes: int
    """Blobs and artifact records; what `max_bytes` bounds. Blobs on their way in are not counted yet."""
    max_bytes: int
    requests: int
    graph_bytes: int
    quarantined: int
    """Damaged files found since the store (or its index) was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GcReport:
    """What a collection removed, or with `dry_run` would remove."""

    artifacts: int
    expired: int
    """Of `artifacts`: those that went for their age."""
    blobs: int
    orphans: int
    """Of `blobs`: those that belonged to no artifact."""
    bytes: int
    dry_run: bool
    gone: tuple[Digest, ...] = ()
    """The artifacts, in the order of their going."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScanReport:
    """What the start-up scan found out of place, and put right."""

    index_set_aside: str
    """Name that a damaged index was given; empty where the index was sound."""
    temporary_files: int
    adopted_blobs: int
    """Files that the index did not know."""
    adopted_artifacts: int
    adopted_requests: int
    lost_blobs: int
    """Rows whose file was missing or had another size."""
    lost_artifacts: int
    """Artifacts dropped because their record or one of their blobs was missing or damaged."""
    lost_requests: int
