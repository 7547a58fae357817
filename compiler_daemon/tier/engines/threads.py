"""A few threads for calls that may hang for ever: neither the event loop nor the end of the process waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

_MOST = 4
"""A hanging file system takes no more of them; what comes after that waits in line until its caller's time is up."""

Work = tuple[Callable[[], Any], "asyncio.Future[Any]"]


class HangingThreads:
    """Runs functions in threads of its own.

    `asyncio.to_thread` would not do: its threads are shared with all of the daemon, and joined at its end.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()

    async def run(self, function: Callable[[], T]) -> T:
        """Return what the function returns. One whose caller has left before its turn is not called."""
        result: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._lock:
            start = self._idle <= self._work.qsize() and len(self._threads) < _MOST
        self._work.put((function, result))
        if start:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return await result

    def close(self) -> None:
        """Let threads that do nothing end; others end after their call, if it ends."""
        for _ in self._threads:
            self._work.put(None)

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            work = self._work.get()
            with self._lock:
                self._idle -= 1
            if work is None:
                return
            function, result = work
            if result.cancelled():
                continue
            try:
                value, error = function(), None
            except Exception as raised:  # noqa: BLE001 - it is the caller's, and is raised there
                value, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                result.get_loop().call_soon_threadsafe(_settle, result, value, error)


def _settle(result: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if result.done():
        return
    if error is None:
        result.set_result(value)
    else:
        result.set_exception(error)
