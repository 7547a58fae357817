"""Which entries go when room is needed: the oldest first, then the least recently used; never what is in use.

Only decides. `space` carries the plan out, so that a dry run and a real one cannot differ.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field

from compile_wire.digest import Digest
from compiler_daemon.store.config import StoreConfig
from compiler_daemon.store.pins import Pins
from compiler_daemon.store.rows import GcReport


@dataclass(slots=True)
class Plan:
    """Lists what is to be removed. Everything in it is claimed in `Pins` where the plan is not for a dry run."""

    artifacts: list[Digest] = field(default_factory=list)
    blobs: list[Digest] = field(default_factory=list)
    expired: int = 0
    orphans: int = 0
    bytes: int = 0

    def report(self, *, dry_run: bool) -> GcReport:
        """Return the plan in figures."""
        return GcReport(
            artifacts=len(self.artifacts),
            expired=self.expired,
            blobs=len(self.blobs),
            orphans=self.orphans,
            bytes=self.bytes,
            dry_run=dry_run,
            gone=tuple(self.artifacts),
        )


class Planner:
    """Makes one plan from the index as it is now. The caller holds the index's lock."""

    def __init__(
        self, connection: sqlite3.Connection, pins: Pins, config: StoreConfig, plan: Plan, *, dry_run: bool
    ) -> None:
        self._connection = connection
        self._pins = pins
        self._config = config
        self._dry_run = dry_run
        self._released: Counter[Digest] = Counter()
        """How many of a blob's artifacts the plan has so far."""
        self.plan = plan

    def add_orphans(self, *, created_before: float) -> None:
        """Plan blobs of no artifact made before that time, but for those an uploader has asked about since."""
        rows = self._connection.execute(
            """SELECT digest, bytes FROM blobs WHERE created <= ?
               AND NOT EXISTS (SELECT 1 FROM artifact_blobs WHERE blob = digest)""",
            (created_before,),
        ).fetchall()
        for digest, size in rows:
            if self._take([digest], self._config.orphan_grace_s):
                self.plan.blobs.append(digest)
                self.plan.orphans += 1
                self.plan.bytes += size

    def add_expired(self, *, used_before: float) -> None:
        """Plan artifacts that nobody has used since then."""
        for digest, record_bytes in self._candidates(used_before=used_before):
            self.plan.expired += self._add_artifact(digest, record_bytes)

    def add_least_recent(self, *, free_bytes: int) -> bool:
        """Plan artifacts, least recently used first, until `free_bytes` come free; return whether they will."""
        if self.plan.bytes >= free_bytes:
            return True
        planned = set(self.plan.artifacts)
        for digest, record_bytes in self._candidates():
            if digest not in planned:
                self._add_artifact(digest, record_bytes)
                if self.plan.bytes >= free_bytes:
                    return True
        return False

    def _candidates(self, used_before: float | None = None) -> list[tuple[Digest, int]]:
        condition, values = ("AND used <= ?", (used_before,)) if used_before is not None else ("", ())
        return self._connection.execute(
            f"SELECT digest, record_bytes FROM artifacts WHERE NOT pinned {condition} ORDER BY used, rowid",  # noqa: S608  # one of two constants
            values,
        ).fetchall()

    def _add_artifact(self, digest: Digest, record_bytes: int) -> bool:
        rows = self._connection.execute(
            """SELECT blob, blobs.bytes, (SELECT count(*) FROM artifact_blobs AS other WHERE other.blob = mine.blob)
               FROM artifact_blobs AS mine JOIN blobs ON blobs.digest = blob WHERE artifact = ?""",
            (digest,),
        ).fetchall()
        freed = {blob: size for blob, size, holders in rows if holders == self._released[blob] + 1}
        # A blob in use that another artifact keeps is no reason to keep this one.
        if not self._take([digest, *freed], self._config.grace_s):
            return False
        self._released.update(blob for blob, _, _ in rows)
        self.plan.artifacts.append(digest)
        self.plan.blobs.extend(freed)
        self.plan.bytes += record_bytes + sum(freed.values())
        return True

    def _take(self, digests: list[Digest], within_s: float) -> bool:
        if self._dry_run:
            return not any(self._pins.busy(digest, within_s) for digest in digests)
        return self._pins.claim(digests, within_s)
