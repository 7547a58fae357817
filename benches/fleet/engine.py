"""A tier as a queue: how long a request takes where many come at once, and how many of which kind came.

Which requests an operation of the daemon makes is counted by hand from `compiler_daemon.tier`, once for engines that
can create a name only once (a directory, a bucket) and once for Redis, which has locks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["directory", "bucket", "redis"]
Operation = Literal["read", "take", "look", "take again", "renew", "create", "release", "touch", "facts"]

_BY_NAMES: Mapping[Operation, tuple[int, int]] = {
    "read": (1, 0),  # the slot of a key: tier.find
    "take": (1, 1),  # the marker; lease/0 created: leases.acquire, lease_generations.take
    "look": (3, 0),  # what stands there where it was taken: lease, beat, the next generation
    "take again": (4, 0),  # the marker, and that look
    "renew": (2, 1),  # lease, the next generation; beat
    "create": (0, 1),  # the artifact's slot: tier.offer
    "release": (1, 2),  # lease; beat and lease deleted
    "touch": (0, 1),
    "facts": (1, 0),
}
_BY_LOCKS: Mapping[Operation, tuple[int, int]] = {
    **_BY_NAMES,
    "take": (1, 1),  # the marker; one script
    "look": (0, 0),  # the script has said it
    "take again": (1, 1),
    "renew": (0, 1),
    "release": (0, 1),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineModel:
    """What one tier can do in a second."""

    kind: Kind
    reads_per_s: float
    writes_per_s: float
    bytes_per_s: float
    latency_s: float

    def requests(self, operation: Operation) -> tuple[int, int]:
        """Return how many reads and writes an operation makes."""
        return (_BY_LOCKS if self.kind == "redis" else _BY_NAMES)[operation]


class Engine:
    """One tier at work: requests are done one after the other, at its rate."""

    def __init__(self, model: EngineModel) -> None:
        self.model = model
        self.operations: Counter[str] = Counter()
        self.reads = self.writes = 0
        self.bytes = 0.0
        self.delays: list[float] = []
        """Of what a lookup waits for, in seconds, latency included."""
        self.by_second: Counter[int] = Counter()
        self.bytes_by_second: Counter[int] = Counter()
        self.work_by_second: dict[int, float] = defaultdict(float)
        """What was asked for in a second, as seconds that the tier needs for it."""
        self._free_at = 0.0

    def ask(self, now: float, operation: Operation, size: float = 0) -> float:
        """Take an operation in; return when it is answered, in seconds from now."""
        reads, writes = self.model.requests(operation)
        model = self.model
        work = max(reads / model.reads_per_s + writes / model.writes_per_s, size / model.bytes_per_s)
        self._free_at = max(self._free_at, now) + work
        # One after the other where they depend on each other: the daemon asks for two at once at most.
        delay = self._free_at - now + model.latency_s * max(1, (reads + 1) // 2 + writes)
        self.operations[operation] += 1
        self.reads += reads
        self.writes += writes
        self.bytes += size
        self.by_second[int(now)] += reads + writes
        self.bytes_by_second[int(now)] += int(size)
        self.work_by_second[int(now)] += work
        if operation == "read":
            self.delays.append(delay)
        return delay
