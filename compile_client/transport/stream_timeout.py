"""A stream that may fall silent, heard with a bounded wait.

gRPC's own iterator cannot be asked to wait for a bounded time, so a thread waits for it. The queue between holds one
message: a daemon that floods is slowed down by gRPC's flow control instead of filling our memory.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterator
from typing import TypeVar

from compile_client.errors import LateError, OverdueError

T = TypeVar("T")

TICK_S = 1.0


class _End:
    """The stream is over; with what it raised, if it raised."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


def stream_with_timeout(stream: Iterator[T], *, timeout_s: float, silence_s: float) -> Generator[T | None, None, None]:
    """Yield what `stream` yields, None about once a second between, and raise what it raises.

    Raises `LateError` after `silence_s` without a message and `OverdueError` when `timeout_s` are over. Then, and when
    the generator is closed, the thread ends as soon as the stream yields or is cancelled, which is the caller's to do.
    """
    messages: queue.Queue[T | _End] = queue.Queue(maxsize=1)
    gone = threading.Event()
    threading.Thread(target=_listen, args=(stream, messages, gone), name="compile-client-listen", daemon=True).start()
    end = time.monotonic() + timeout_s
    last = time.monotonic()
    try:
        while True:
            now = time.monotonic()
            if now >= end:
                raise OverdueError(f"the compile took longer than the {timeout_s:.3g} s that were left for it")
            if now - last >= silence_s:
                raise LateError(f"the daemon was silent for {silence_s:g} s during a compile")
            try:
                message = messages.get(timeout=min(TICK_S, last + silence_s - now, end - now))
            except queue.Empty:
                yield None
                continue
            last = time.monotonic()
            if isinstance(message, _End):
                if message.error is not None:
                    raise message.error
                return
            yield message
    finally:
        gone.set()


def _listen(stream: Iterator[T], messages: queue.Queue[T | _End], gone: threading.Event) -> None:
    try:
        for message in stream:
            if not _hand_over(message, messages, gone):
                return
    except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
        _hand_over(_End(error), messages, gone)
    else:
        _hand_over(_End(), messages, gone)


def _hand_over(message: T | _End, messages: queue.Queue[T | _End], gone: threading.Event) -> bool:
    while not gone.is_set():
        try:
            messages.put(message, timeout=TICK_S)
        except queue.Full:
            continue
        return True
    return False
