"""Jobs that wait for a worker, in the order in which they get one: those that somebody waits for first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from compile_wire.digest import Digest
from compiler_daemon.jobs import WorkerKind
from compiler_daemon.workers.process import WorkerProcess


@dataclass(frozen=True, slots=True)
class Start:
    """Says how a worker is started: with which interpreter, and for which kind of job."""

    interpreter: str
    kind: WorkerKind

    def __str__(self) -> str:
        return self.interpreter if self.kind == "graphs" else f"{self.interpreter} ({self.kind})"


@dataclass(eq=False, kw_only=True, slots=True)
class Request:
    """Stands for one job that waits for a worker."""

    environment: Digest | None
    """None takes any worker of the start."""
    fields: Mapping[str, str]
    start: Start
    key: str
    is_background: bool
    """Whether nobody waits for it."""
    granted: asyncio.Future[WorkerProcess]


class Requests:
    """Keeps them in order: first come, first served, among those that somebody waits for and among the others."""

    def __init__(self) -> None:
        self._waiting: list[Request] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Request]:
        """Yield them in order; they may be changed meanwhile."""
        return iter(list(self._waiting))

    def __contains__(self, request: Request) -> bool:
        return request in self._waiting

    def add(self, request: Request) -> None:
        """Let it wait behind the others of its kind."""
        ahead = (number for number, other in enumerate(self._waiting) if other.is_background > request.is_background)
        self._waiting.insert(next(ahead, len(self._waiting)), request)

    def remove(self, request: Request) -> None:
        """Let it wait no more."""
        self._waiting.remove(request)

    def position(self, request: Request) -> int:
        """Return how many are before it."""
        return self._waiting.index(request)

    def hurry(self, environment: Digest, key: str) -> bool:
        """Let the jobs of a graph go before those that nobody waits for; return whether one waits."""
        found = [request for request in self._waiting if (request.environment, request.key) == (environment, key)]
        for request in found:
            if request.is_background:
                self._waiting.remove(request)
                request.is_background = False
                self.add(request)
        return bool(found)

    def clear(self) -> None:
        """Forget them all."""
        self._waiting.clear()
