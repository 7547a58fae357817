"""Which blobs and artifacts are in use right now, so that eviction leaves them alone.

Kept in memory: after a restart no client is in the middle of anything. Times are of the monotonic clock, so a jump of
the wall clock neither protects an entry for ever nor exposes it.

`touch` and `claim` exclude each other: either a reader's touch comes first and eviction leaves the entry alone, or
eviction's claim comes first and the reader is told that the entry is gone.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from compile_wire.digest import Digest

_PRUNE_ABOVE = 65536
"""Touches remembered before the old ones are dropped: about ten megabytes."""


class Pins:
    """Counts which blobs are in use, so that none of them is evicted. Safe to call from any thread."""

    def __init__(self, *, remember_s: float) -> None:
        self._lock = threading.Lock()
        self._remember_s = remember_s
        self._counts: Counter[Digest] = Counter()
        self._touched: dict[Digest, float] = {}
        self._claimed: set[Digest] = set()

    @contextmanager
    def pin(self, digests: Iterable[Digest]) -> Iterator[None]:
        """Keep all of them from being evicted until the block ends; pins add up."""
        held = list(digests)
        with self._lock:
            self._counts.update(held)
        try:
            yield
        finally:
            with self._lock:
                self._counts.subtract(held)
                for digest in held:
                    if self._counts[digest] <= 0:
                        del self._counts[digest]
                    self._touch(digest)

    def touch(self, digest: Digest) -> bool:
        """Note a use; return False where eviction has claimed the entry already."""
        with self._lock:
            if digest in self._claimed:
                return False
            self._touch(digest)
            return True

    def busy(self, digest: Digest, within_s: float) -> bool:
        """Return whether the entry is pinned, or was used in the last `within_s` seconds."""
        with self._lock:
            return self._busy(digest, within_s)

    def claim(self, digests: Collection[Digest], within_s: float) -> bool:
        """Take all of them for eviction, or none where one is busy."""
        with self._lock:
            if any(self._busy(digest, within_s) for digest in digests):
                return False
            self._claimed.update(digests)
            return True

    def release(self, digests: Iterable[Digest]) -> None:
        """End a claim: the entries are gone, or stay after all."""
        with self._lock:
            self._claimed.difference_update(digests)

    def _busy(self, digest: Digest, within_s: float) -> bool:
        if self._counts.get(digest, 0) > 0:
            return True
        touched = self._touched.get(digest)
        return touched is not None and time.monotonic() - touched < within_s

    def _touch(self, digest: Digest) -> None:
        now = time.monotonic()
        self._touched[digest] = now
        if len(self._touched) > _PRUNE_ABOVE:
            self._touched = {
                digest: touched for digest, touched in self._touched.items() if now - touched < self._remember_s
            }
