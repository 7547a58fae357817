"""The hard limit: room is taken before anything is written, and made by evicting where it lacks.

Guarantee: blobs, records and environments among the files, together with those on their way in, never pass `max_bytes`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from compiler_daemon.store.config import StoreConfig
from compiler_daemon.store.deletion import delete_artifacts
from compiler_daemon.store.directory import Directory
from compiler_daemon.store.errors import StoreFullError
from compiler_daemon.store.eviction import Plan, Planner
from compiler_daemon.store.files import FileStores
from compiler_daemon.store.index import Index, clamp_times, total_bytes
from compiler_daemon.store.pins import Pins
from compiler_daemon.store.rows import GcReport
from compiler_daemon.store.usage_stamps import UsageTracker


class SpaceQuota:
    """Limits how much the store may hold: each write takes its space first. Safe to call from any thread."""

    def __init__(
        self,
        config: StoreConfig,
        directory: Directory,
        index: Index,
        file_stores: FileStores,
        pins: Pins,
        usage_tracker: UsageTracker,
        *,
        beside: Callable[[], int],
    ) -> None:
        """`beside` tells how many bytes lie there that no table of the index counts."""
        self._beside = beside
        self._config = config
        self._directory = directory
        self._index = index
        self._file_stores = file_stores
        self._pins = pins
        self._usage_tracker = usage_tracker
        self._reserved_bytes = 0
        self._opened = time.time()

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Hold room for `size` bytes while they are written.

        Raises `StoreFullError` where even evicting everything that may go leaves too little; nothing is evicted then.
        """
        with self._index.lock:
            self._make_room(size)
            self._reserved_bytes += size
        try:
            yield
        finally:
            with self._index.lock:
                self._reserved_bytes -= size

    def collect(self, *, dry_run: bool, max_bytes: int | None, max_age_s: float | None) -> GcReport:
        """Remove orphans and expired artifacts, then the least recently used. See `Store.collect`."""
        with self._planning(dry_run=dry_run) as (planner, used):
            now = time.time()
            planner.add_orphans(created_before=now - self._config.orphan_grace_s)
            age_s = self._config.max_age_s if max_age_s is None else max_age_s
            if age_s is not None:
                planner.add_expired(used_before=now - age_s)
            planner.add_least_recent(free_bytes=used - (self._low_water_bytes() if max_bytes is None else max_bytes))
        return planner.plan.report(dry_run=dry_run)

    def _make_room(self, size: int) -> None:
        limit = self._config.max_bytes
        if size > limit:
            raise StoreFullError(f"{size} bytes do not fit into a store of {limit} bytes: raise its limit")
        with self._index.reading() as connection:
            if self._used(connection) + size <= limit:
                return
        target = self._low_water_bytes() if size <= self._low_water_bytes() else limit
        with self._planning(dry_run=False) as (planner, used):
            # No upload outlives the daemon: who goes on with one asks first which blobs are missing, and so keeps them.
            planner.add_orphans(created_before=max(self._opened, time.time() - self._config.orphan_grace_s))
            planner.add_least_recent(free_bytes=used + size - target)
            if used + size - planner.plan.bytes > limit:
                raise StoreFullError(
                    f"no room for {size} bytes: {used} of {limit} are taken, and what could go is in use, pinned or "
                    "was read a moment ago; raise the store's limit, or remove pins"
                )

    @contextmanager
    def _planning(self, *, dry_run: bool) -> Iterator[tuple[Planner, int]]:
        """Yield a planner and the bytes taken; carry out what is planned in the block at its end, if it ends well."""
        self._usage_tracker.flush()
        # The lock is held until the files are gone: a writer that puts a blob back would lose it otherwise.
        with self._index.lock:
            plan = Plan()
            try:
                with self._index.writing() as connection:
                    clamp_times(connection)
                    planner = Planner(connection, self._pins, self._config, plan, dry_run=dry_run)
                    yield planner, self._used(connection)
                    if not dry_run:
                        delete_artifacts(connection, self._file_stores, plan.artifacts)
                        connection.executemany("DELETE FROM blobs WHERE digest = ?", [(blob,) for blob in plan.blobs])
                if not dry_run:
                    with self._directory.failing_as("remove evicted blobs"):
                        for digest in plan.blobs:
                            self._file_stores.blobs.remove(digest)
            finally:
                self._pins.release([*plan.artifacts, *plan.blobs])

    def _low_water_bytes(self) -> int:
        return int(self._config.max_bytes * self._config.low_water)

    def _used(self, connection: sqlite3.Connection) -> int:
        return total_bytes(connection, "shelved") + self._reserved_bytes + self._beside()
