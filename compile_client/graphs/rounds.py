"""When a compile-only program has shown all its graphs: it ends after so many steps without a new one.

A training's steps compile nothing new after the first few, and what they write is of no use where only the graphs are
wanted. The steps are counted behind dynamo, where the graphs run: a hook in the program would be in its graphs.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import Counter

from compile_client.log import say


class Rounds:
    """Counts how often each graph has run since the last new one came. Safe to call from any thread."""

    def __init__(self, limit: int) -> None:
        """`limit` is how often one of them may run; 0 is for ever."""
        self._limit = limit
        self._lock = threading.Lock()
        self._graphs = 0
        self._ran: Counter[int] = Counter()

    def new_graph(self) -> int:
        """Note that a graph came; return its number."""
        with self._lock:
            self._ran.clear()
            self._graphs += 1
            return self._graphs

    def ran(self, graph: int) -> None:
        """Note that a graph runs; raise `SystemExit` where it has run so often that no new one is expected.

        Only in the main thread, where that ends the program.
        """
        with self._lock:
            self._ran[graph] += 1
            enough = 0 < self._limit < self._ran[graph]
        if enough and threading.current_thread() is threading.main_thread():
            say(f"no new graph in {self._limit} steps: this compile-only program ends", logging.INFO)
            raise SystemExit(0)


@functools.cache
def process_rounds(limit: int) -> Rounds:
    """Return the process's one."""
    return Rounds(limit)
