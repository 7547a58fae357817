"""A worker's processes, all of them: measured together, and killed together.

Guarantees: after `kill`, nothing that the worker started and that was ever seen here runs any more; that includes
children in sessions of their own, which a signal to the process group would miss. All calls may block for milliseconds
and belong in a thread.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import psutil

_GONE = (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied)
_MAX_ROUNDS = 10


class ProcessTree:
    """The tree below one process that leads its own session."""

    def __init__(self, leader: int) -> None:
        self._leader = psutil.Process(leader)
        # A child whose parent has died is no descendant any more: whoever was seen once is remembered. psutil compares
        # start times, so a number that the system has given to another process since is not taken for ours.
        self._seen: set[psutil.Process] = set()

    def rss_bytes(self) -> int:
        """Return the resident memory of all of them, and remember who they are."""
        self._look(with_session=False)
        return sum(self._rss(process) for process in (self._leader, *self._seen))

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
        """Processes of the leader's session: orphans that were never seen as children are still in it."""
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

    @staticmethod
    def _rss(process: psutil.Process) -> int:
        try:
            return int(process.memory_info().rss)
        except _GONE:
            return 0
