"""How much room the store may take, and for how long it keeps what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreConfig:
    """Configures where artifacts live and what bounds them."""

    root: Path
    """Made with mode 0700 where it does not exist."""

    max_bytes: int = 20 * 2**30
    """Hard limit on blobs and artifact records together; no put ever passes it."""

    low_water: float = 0.9
    """Eviction goes down to this part of `max_bytes`, so that a full store does not evict on every put."""

    max_age_s: float | None = None
    """`collect` removes artifacts that nobody has used for this long; None keeps them while there is room."""

    grace_s: float = 30.0
    """Never evict an entry read this recently: a client may be about to ask for its blobs."""

    orphan_grace_s: float = 3600.0
    """Blobs of no artifact are kept this long: an uploader sends the blobs first and the manifest last.
    Where room lacks, those from before the daemon's start go at once."""

    max_graph_bytes: int = 2**30
    """Bound of the kept requests, beside `max_bytes`: about ten thousand graphs of 100 KB. The oldest go first."""

    max_environments: int = 1024
    """Environments that are remembered; the oldest go first."""

    max_quarantine_bytes: int = 256 * 2**20
    """Damaged files kept for a person to look at; the oldest go first."""

    address: str = ""
    """What a second daemon on the same directory is told about this one."""

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_graph_bytes", "max_environments", "max_quarantine_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("grace_s", "orphan_grace_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 < self.low_water <= 1:
            raise ValueError(f"low_water is a part between 0 and 1, got {self.low_water}")
        if self.max_age_s is not None and not self.max_age_s > 0:
            raise ValueError(f"max_age_s must be positive, got {self.max_age_s}")
