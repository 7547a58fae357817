"""The names of all counters in one table, and the counters themselves.

Counts are kept here and handed to the store once a second, so that they survive a restart; a kill loses the last
second.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

HANDSHAKES = "handshakes"
HANDSHAKES_REFUSED = "handshakes_refused"
UNAUTHENTICATED = "unauthenticated"
FORBIDDEN = "forbidden"  # calls that the caller's role does not allow

LOOKUPS = "lookups"
LOOKUP_HITS = "lookup_hits"
LOOKUP_MISSES = "lookup_misses"
LOOKUP_HITS_REPLAYED = "lookup_hits_replayed"  # of the hits: served by an artifact that `replay` made
ENTRIES_UNUSABLE = "entries_unusable"  # stored, but a blob or the signature is not what it should be

COMPILES_ASKED = "compiles_asked"
COMPILES_JOINED = "compiles_joined"  # asked for while the same key was under way
COMPILES_STARTED = "compiles_started"
COMPILES_DONE = "compiles_done"
COMPILES_FOUND = "compiles_found"  # asked for, but stored by then
COMPILES_FAILED = "compiles_failed"  # the result could not be stored
COMPILES_REFUSED = "compiles_refused"  # each also as compiles_refused.<reason>
COMPILE_SECONDS = "compile_seconds"
GRAPHS_REPLAYED = "graphs_replayed"  # compiled again from a kept graph
SECONDS_SAVED = "seconds_saved"  # compile seconds of the artifacts that lookups found

GRAPHS_REPORTED = "graphs_reported"  # by trainers, at the latest when they end
GRAPHS_MISSED = "graphs_missed"  # of these, only as graphs_missed.<cause>; see runs.records.Cause

GRAPHS_QUARANTINED = "graphs_quarantined"
WORKERS_STARTED = "workers_started"
WORKERS_FAILED = "workers_failed"  # did not come up
WORKERS_LOST = "workers_lost"  # died or broke the protocol during a job
WORKERS_OVER_LIMIT = "workers_over_limit"
WORKERS_DIED = "workers_died"  # while they had no job

STORE_UNWRITABLE = "store_unwritable"  # seconds in which these counts could not be kept: a full or read-only disk

ARTIFACTS_PUBLISHED = "artifacts_published"
ARTIFACTS_IMPORTED = "artifacts_imported"
ARTIFACTS_DISPUTED = "artifacts_disputed"  # put into quarantine: a trainer's own compile made other code
ARTIFACTS_REMOVED = "artifacts_removed"  # by an operator
BLOBS_READ = "blobs_read"
BLOBS_WRITTEN = "blobs_written"

TIER_HITS = "tier_hits"  # artifacts that a shared tier had, and that were believed
TIER_MISSES = "tier_misses"
TIER_LATE = "tier_late"  # answers that a lookup, or a compile's waiters, did not wait for
TIER_FAILED = "tier_failed"  # calls that a tier did not do
TIER_REJECTED = "tier_rejected"  # objects that are not used; each also as tier_rejected.<reason>
TIER_WRITTEN = "tier_written"
TIER_DROPPED = "tier_dropped"  # writes that waited for too long behind others
TIER_ADOPTED = "tier_adopted"  # compiled here, and another node's artifact is used: it was first
TIER_WAITED = "tier_waited"  # asked for a lease that another node has
TIER_MERGED = "tier_merged"  # compiles that another node did while this one waited for it
TIER_DUPLICATES = "tier_duplicates"  # compiled here although another node had the lease by then
TIER_REFUSED = "tier_refused"  # not tried here, because another node was refused
TIER_BYTES_READ = "tier_bytes_read"
TIER_BYTES_WRITTEN = "tier_bytes_written"

OF_ONE_TIER = (
    TIER_HITS,
    TIER_MISSES,
    TIER_LATE,
    TIER_FAILED,
    TIER_REJECTED,
    TIER_WRITTEN,
    TIER_DROPPED,
    TIER_ADOPTED,
    TIER_WAITED,
    TIER_BYTES_READ,
    TIER_BYTES_WRITTEN,
)
"""Those of a tier that are also counted for each apart, since the daemon started."""

STORE_BYTES = "store_bytes"
STORE_ARTIFACTS = "store_artifacts"

SAMPLED = (
    LOOKUPS,
    LOOKUP_HITS,
    LOOKUP_MISSES,
    SECONDS_SAVED,
    COMPILES_DONE,
    COMPILES_REFUSED,
    COMPILE_SECONDS,
    ARTIFACTS_PUBLISHED,
)
"""Counters of which the store keeps a curve, together with the two sizes above, which are no counters."""


class Counters:
    """Counts by name, from the moment they were last taken. Safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: Counter[str] = Counter()
        self._milliseconds: Counter[str] = Counter()

    def add(self, name: str, amount: int = 1) -> None:
        """Count."""
        with self._lock:
            self._pending[name] += amount

    def add_seconds(self, name: str, seconds: float) -> None:
        """Count whole seconds; what is left over is carried to the next call."""
        with self._lock:
            milliseconds = self._milliseconds[name] + round(seconds * 1000)
            self._pending[name] += milliseconds // 1000
            self._milliseconds[name] = milliseconds % 1000

    def pending(self) -> Counter[str]:
        """Return what has not been taken yet."""
        with self._lock:
            return self._pending.copy()

    def take(self) -> dict[str, int]:
        """Return what has been counted since the last call, and start again from zero."""
        with self._lock:
            taken = {name: amount for name, amount in self._pending.items() if amount}
            self._pending.clear()
        return taken

    def give_back(self, taken: Mapping[str, int]) -> None:
        """Undo a `take` whose counts could not be stored."""
        with self._lock:
            self._pending.update(taken)
