"""The soak's look at the daemon from outside, over all its lives: memory, files, bytes on the disk, counters."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import grpc
import psutil

from benches.harness.daemon import ServedDaemon, store_bytes_on_disk

SAVED_WITHIN_S = 3.0
"""Counts older than this must survive a kill: they are saved every second, and a busy disk may take another."""
_ORPHAN_S = 45.0
"""A killed daemon's worker notices when it next reads; a kernel's C++ build is finished first."""
_MIB = 2**20


@dataclass(slots=True)
class Generation:
    """One life of the daemon."""

    started: float
    ready_s: float
    rss_early_mib: float = 0.0
    rss_end_mib: float = 0.0
    rss_max_mib: float = 0.0
    files_max: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    store_mib: float = 0.0
    artifacts: int = 0
    killed: bool = False


@dataclass(slots=True)
class Watch:
    """What was seen so far."""

    daemon: ServedDaemon
    store_bytes: int
    generations: list[Generation] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    most_on_disk: int = 0
    over_limit: list[int] = field(default_factory=list)
    """Bytes on the disk, where they were more than the store may have while the daemon stood still."""
    frozen_looks: int = 0
    exact_looks: int = 0
    fallen: list[str] = field(default_factory=list)
    """Counters that fell within one life, or that lost over a kill what had long been saved."""
    most_lost: dict[str, int] = field(default_factory=dict)
    """By counter, the most that one kill cost."""
    most_lost_s: float = 0.0
    unanswered: int = 0
    ended_by_itself: int = 0
    orphans: list[str] = field(default_factory=list)
    _history: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    _first_of_life: bool = False
    _killed_at: float = 0.0
    _dying: list[tuple[float, psutil.Process]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generations.append(Generation(started=time.monotonic(), ready_s=0.0))

    def look(self) -> None:
        """Look once."""
        if self.daemon.has_ended():
            self.ended_by_itself += 1
            self.generations.append(Generation(started=time.monotonic(), ready_s=self.daemon.start()))
            return
        life = self.generations[-1]
        sample = self.daemon.sample()
        life.seconds = round(time.monotonic() - life.started, 1)
        life.cpu_s = round(sample.cpu_s, 2)
        life.rss_end_mib = round(sample.rss_bytes / _MIB, 1)
        life.rss_max_mib = max(life.rss_max_mib, life.rss_end_mib)
        if not life.rss_early_mib and life.seconds >= 5:
            life.rss_early_mib = life.rss_end_mib
        life.files_max = max(life.files_max, sample.open_files)
        self._look_at_disk()
        self._look_at_counters()
        self._look_for_orphans()

    def end_generation(self, *, killed: bool) -> None:
        """Note the end of a life; with `killed` bring it about, and measure what lies there afterwards."""
        life = self.generations[-1]
        life.killed = killed
        if not killed:
            return
        children = psutil.Process(self.daemon.pid).children(recursive=True)
        self.daemon.kill()
        self._killed_at = time.monotonic()
        self._dying += [(self._killed_at, child) for child in children]
        self._note_disk(store_bytes_on_disk(self.daemon.directory), exact=True)

    def restarted(self, ready_s: float) -> None:
        """Note a new life that took so long to answer."""
        self.generations.append(Generation(started=time.monotonic(), ready_s=round(ready_s, 2)))
        self._first_of_life = True

    def line(self) -> str:
        """Return how it goes, for people."""
        life = self.generations[-1]
        hits, misses = self.counters.get("lookup_hits", 0), self.counters.get("lookup_misses", 0)
        return (
            f"life {len(self.generations)}: {life.rss_end_mib:.0f} MiB, {life.files_max} files, "
            f"store {life.store_mib:.0f} of {self.store_bytes / _MIB:.0f} MiB, {hits} hits, {misses} misses, "
            f"{self.counters.get('artifacts_published', 0)} published, {len(self.over_limit)} over the limit"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything in plain values."""
        lives = [asdict(life) for life in self.generations]
        for life in lives:
            del life["started"]
        return {
            "generations": lives,
            "counters": self.counters,
            "most_on_disk_mib": round(self.most_on_disk / _MIB, 2),
            "over_limit": self.over_limit,
            "looks_at_disk_while_it_stood_still": self.exact_looks + self.frozen_looks,
            "counters_fallen": self.fallen,
            "most_lost_over_a_kill": self.most_lost,
            "most_lost_s": round(self.most_lost_s, 2),
            "unanswered_status_calls": self.unanswered,
            "ended_by_itself": self.ended_by_itself,
            "orphans": self.orphans,
        }

    def _look_at_disk(self) -> None:
        found = store_bytes_on_disk(self.daemon.directory)
        if found > self.store_bytes:
            # It may be of no one moment: what has gone since was counted, and what has come as well.
            self.frozen_looks += 1
            found = self.daemon.frozen(lambda: store_bytes_on_disk(self.daemon.directory))
            self._note_disk(found, exact=True)
        else:
            self._note_disk(found, exact=False)

    def _note_disk(self, found: int, *, exact: bool) -> None:
        self.most_on_disk = max(self.most_on_disk, found)
        self.generations[-1].store_mib = round(found / _MIB, 1)
        self.exact_looks += exact
        if exact and found > self.store_bytes:
            self.over_limit.append(found)

    def _look_at_counters(self) -> None:
        try:
            status = self.daemon.status()
        except grpc.RpcError:
            self.unanswered += 1
            return
        now, counters = time.monotonic(), dict(status.counters)
        self.generations[-1].artifacts = status.artifacts
        if self._first_of_life:
            self._compare_over_kill(counters)
            self._history.clear()
        elif self._history:
            self._note_fallen(self._history[-1][1], counters, "within one life")
        self._first_of_life = False
        self.counters = counters
        self._history = [*self._history[-20:], (now, counters)]

    def _compare_over_kill(self, counters: dict[str, int]) -> None:
        if not self._history:
            return
        saved = [old for at, old in self._history if at <= self._killed_at - SAVED_WITHIN_S]
        if saved:
            self._note_fallen(saved[-1], counters, "over a kill")
        for name, last in self._history[-1][1].items():
            if (lost := last - counters.get(name, 0)) > 0:
                self.most_lost[name] = max(lost, self.most_lost.get(name, 0))
        intact = [at for at, old in self._history if all(counters.get(name, 0) >= value for name, value in old.items())]
        if intact:
            self.most_lost_s = max(self.most_lost_s, self._killed_at - intact[-1])

    def _note_fallen(self, old: dict[str, int], new: dict[str, int], when: str) -> None:
        self.fallen += [
            f"{name} fell {when} from {value} to {new.get(name, 0)}"
            for name, value in old.items()
            if new.get(name, 0) < value
        ]

    def _look_for_orphans(self) -> None:
        now = time.monotonic()
        kept: list[tuple[float, psutil.Process]] = []
        for killed_at, process in self._dying:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if now - killed_at > _ORPHAN_S:
                self.orphans.append(f"process {process.pid} lived on for {_ORPHAN_S:.0f} s: {process.name()}")
            else:
                kept.append((killed_at, process))
        self._dying = kept
