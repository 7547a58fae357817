"""What became of each graph and kernel of this process, told to the daemon quietly, for `explain` and `stats`.

Guarantees: `note` never waits; what is kept is bounded; a report goes over a connection that is open already, or not at
all, and a report's failure is none of the training's: it is neither counted nor logged. A daemon that knows no reports
is told nothing more.

Not guaranteed: that a report arrives. A graph costs no call of its own: they are gathered for a few seconds.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from compile_client.transport.records import GraphNote, RunPart
from compile_wire.limits import MAX_GRAPHS_PER_REPORT, MAX_GRAPHS_PER_RUN

_GATHER_S = 3.0
_PATIENCE_S = 60.0
"""After a report that did not arrive the next waits twice as long as the one before, up to this."""
_MAX_TOLD = 32


class RunQueue:
    """Collects the record of this process's run. Safe to call from any thread."""

    def __init__(
        self,
        send: Callable[[RunPart, float], bool | None],
        fallbacks: Callable[[], Mapping[str, int]],
        *,
        gather_s: float = _GATHER_S,
        run: str = "",
    ) -> None:
        """`send` takes a part and the seconds it may take; it must not raise. `run`: the record's name, if given.

        It returns whether the part arrived, and None where no later one will either.
        """
        self.run = run or os.urandom(16).hex()
        self._send = send
        self._fallbacks = fallbacks
        self._gather_s = gather_s
        self._began = time.monotonic()
        self._changed = threading.Condition()
        self._waiting: deque[GraphNote] = deque()
        self._missed: list[GraphNote] = []
        self._count = 0
        self._unreported = 0
        self._sending = threading.Lock()
        self._deaf = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def note(self, graph: GraphNote) -> None:
        """Remember what became of a graph."""
        with self._changed:
            if graph.outcome in ("compiled_by_daemon", "compiled_here") and len(self._missed) < _MAX_TOLD:
                self._missed.append(graph)
            if self._closed or self._deaf:
                return
            if self._count >= MAX_GRAPHS_PER_RUN:
                self._unreported += 1
                return
            self._count += 1
            self._waiting.append(graph)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="compile-client-runs", daemon=True)
                self._thread.start()
            elif len(self._waiting) >= MAX_GRAPHS_PER_REPORT:
                self._changed.notify_all()

    def missed(self) -> list[GraphNote]:
        """Return the first of the graphs that were not there."""
        with self._changed:
            return list(self._missed)

    def finish(self, timeout_s: float) -> None:
        """Send what is left, in this thread; at most `timeout_s` are waited for. Nothing is sent after this."""
        end = time.monotonic() + timeout_s
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if not self._count or self._deaf or not self._sending.acquire(timeout=max(0.0, timeout_s)):
            return
        try:
            while (remaining := end - time.monotonic()) > 0:
                part = self._part()
                if not self._deliver(part, remaining) or part.ended:
                    return
        finally:
            self._sending.release()

    def _work(self) -> None:
        pause_s = self._gather_s
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or len(self._waiting) >= MAX_GRAPHS_PER_REPORT, timeout=pause_s
                )
                if self._closed or self._deaf:
                    return
                if not self._waiting:
                    # Nothing to say for a while: the next graph brings a new thread.
                    self._thread = None
                    return
            with self._sending:
                if self._closed:
                    return
                arrived = self._deliver(self._part(), 2.0)
            pause_s = self._gather_s if arrived else min(_PATIENCE_S, 2 * pause_s)

    def _part(self) -> RunPart:
        with self._changed:
            graphs = tuple(self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_GRAPHS_PER_REPORT)))
            return RunPart(
                run=self.run,
                age_s=time.monotonic() - self._began,
                graphs=graphs,
                fallbacks=dict(self._fallbacks()),
                unreported=self._unreported,
                ended=self._closed and not self._waiting,
            )

    def _deliver(self, part: RunPart, timeout_s: float) -> bool:
        arrived = self._send(part, timeout_s)
        if arrived is None:
            self._deaf = True
        if not arrived:
            with self._changed:  # the daemon knows graphs that it was told of before: repeating them does no harm
                self._waiting.extendleft(reversed(part.graphs))
        return bool(arrived)
