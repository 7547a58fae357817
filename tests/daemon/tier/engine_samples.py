from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from compiler_daemon.tier.address import TierAddress


@dataclass(frozen=True)
class Place:
    """Where a test's tier is, and what it takes to reach it."""

    address: TierAddress
    environ: Mapping[str, str] = field(default_factory=dict)


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
