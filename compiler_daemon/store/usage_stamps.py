"""Last-use stamps and hit counts of artifacts, written in batches: a lookup costs no write to the disk.

A kill -9 loses at most the last second of them. A flush never raises: a disk that takes no writes must not turn hits
into errors.
"""

from __future__ import annotations

import logging
import threading
import time

from compile_wire.digest import Digest
from compiler_daemon.store.errors import StoreError
from compiler_daemon.store.index import Index

logger = logging.getLogger(__name__)

_FLUSH_AFTER_S = 1.0
_FLUSH_ABOVE = 256
"""Stamps that are waiting; one transaction of them takes about a millisecond."""


class UsageTracker:
    """Collects uses of artifacts until they are written to the index. Safe to call from any thread."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._waiting: dict[Digest, tuple[float, int]] = {}
        self._flushed = time.monotonic()
        self._failing = False

    def note(self, digest: Digest, *, hits: int = 0) -> None:
        """Note that an artifact is used, now, and how many hits it was thereby."""
        with self._lock:
            _, before = self._waiting.get(digest, (0.0, 0))
            self._waiting[digest] = (time.time(), before + hits)
            due = len(self._waiting) > _FLUSH_ABOVE or time.monotonic() - self._flushed > _FLUSH_AFTER_S
        # A reader does not wait for a writer: the next use flushes as well.
        if due and self._index.lock.acquire(blocking=False):
            try:
                self.flush()
            finally:
                self._index.lock.release()

    def flush(self) -> None:
        """Write what was collected to the index. Stamps that it does not take are dropped, and said once."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            self._flushed = time.monotonic()
        if not waiting:
            return
        try:
            with self._index.writing() as connection:
                connection.executemany(
                    "UPDATE artifacts SET used = ?, hits = hits + ? WHERE digest = ?",
                    [(used, hits, digest) for digest, (used, hits) in waiting.items()],
                )
        except StoreError as error:
            if not self._failing:
                logger.warning("last-use stamps are not being kept: %s", error)
            self._failing = True
        else:
            self._failing = False
