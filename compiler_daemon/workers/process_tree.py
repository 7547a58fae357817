"""A worker's processes, all of them: measured together, and killed together.

Guarantees: after `kill`, nothing that the worker started and that was ever seen here runs any more; that includes
children in sessions of their own, which a signal to the process group would miss. All calls may block for milliseconds
and belong in a thread.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

_GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied)
_MAX_ROUNDS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeUsage:
    """What the processes of a tree use together."""

    rss_bytes: int
    cpu_s: float
    """Since the tree began."""


class ProcessTree:
    """The tree below one process that leads its own session."""

    def __init__(self, leader: int) -> None:
        self._leader = psutil.Process(leader)
        # A child whose parent has died is no descendant any more: whoever was seen once is remembered. psutil compares
        # start times, so a number that the system has given to another process since is not taken for ours.
        self._seen: set[psutil.Process] = set()

    def usage(self) -> TreeUsage:
        """Return what all of them use, and remember who they are."""
        self._look(with_session=False)
        rss_bytes, cpu_s = 0, 0.0
        for process in (self._leader, *self._seen):
            with contextlib.suppress(*_GONE), process.oneshot():
                times = process.cpu_times()
                # Children that have ended are in their parent's account, living ones in their own.
                cpu_s += times.user + times.system + times.children_user + times.children_system
                rss_bytes += process.memory_info().rss
        return TreeUsage(rss_bytes=rss_bytes, cpu_s=cpu_s)

    def kill(self) -> None:
        """End all of them, and wait until they have ended.

        They are stopped first and looked for again until nobody new is found: a process that is killed while its
        brother still forks leaves orphans behind.
        """
        stopped: set[psutil.Process] = set()
        for _ in range(_MAX_ROUNDS):
            fresh = self._look(with_session=True) - stopped
            if not fresh:
                break
            for process in fresh:
                with contextlib.suppress(*_GONE):
                    process.suspend()
            stopped |= fresh
        for process in stopped:
            with contextlib.suppress(*_GONE):
                process.kill()
        psutil.wait_procs(stopped - {self._leader}, timeout=5)

    def _look(self, *, with_session: bool) -> set[psutil.Process]:
        roots = {self._leader, *self._seen}
        found = set(roots)
        for process in roots:
            with contextlib.suppress(*_GONE):
                found.update(process.children(recursive=True))
        if with_session:
            found.update(self._session())
        living = {process for process in found if self._lives(process)}
        self._seen = living - {self._leader}
        return living

    def _session(self) -> Iterator[psutil.Process]:
        """Yield the processes of the leader's session: orphans that were never seen as children are still in it."""
        for pid in psutil.pids():
            with contextlib.suppress(*_GONE, OSError):
                if os.getsid(pid) == self._leader.pid:
                    yield psutil.Process(pid)

    @staticmethod
    def _lives(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except _GONE:
            return False
