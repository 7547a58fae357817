"""Hands artifacts that were compiled here to the daemon, behind the trainer's back.

Guarantees: `offer` never waits for the daemon; what waits to be published is bounded in number and in bytes; the end of
the process is delayed by at most the seconds given to `flush`.

Not guaranteed: that what was offered arrives. Whatever is dropped is counted with its reason. Since Python 3.12 a
process that ends can start no thread, and gRPC needs one to stream: a blob too large for a message is dropped then.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from compile_client.config import ClientConfig
from compile_client.errors import ClientError, InternalError
from compile_client.reporting.process_report import ProcessReport
from compile_client.transport.deadline import Deadline
from compile_client.transport.messages import LocalCompile
from compile_client.transport.reconnect import ReconnectingChannel

QUEUE_FULL = "queue_full"
EXIT = "exit"


class Publisher:
    """Publishes artifacts in the background: a queue and one daemon thread, started with the first offer."""

    def __init__(
        self,
        publish: Callable[[LocalCompile], None],
        dropped: Callable[[str], None],
        *,
        max_items: int,
        max_bytes: int,
    ) -> None:
        """`publish` must not raise; `dropped` is told the reason of each artifact that is not even tried."""
        self._publish = publish
        self._dropped = dropped
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        self._waiting: deque[LocalCompile] = deque()
        self._bytes = 0
        self._busy = False
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being published now."""
        return self._busy

    def offer(self, compiled: LocalCompile) -> bool:
        """Queue an artifact; return False where it was dropped."""
        size = compiled.total_bytes
        with self._changed:
            reason = EXIT if self._closed else QUEUE_FULL if self._is_full(size) else ""
            if not reason:
                self._waiting.append(compiled)
                self._bytes += size
                self._start()
                self._changed.notify_all()
        if reason:
            self._dropped(reason)
        return not reason

    def flush(self, timeout_s: float) -> None:
        """Wait until everything offered was tried, at most `timeout_s`; drop the rest and take no more."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while (self._waiting or self._busy) and self._thread is not None and self._thread.is_alive():
                remaining = end - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            lost = len(self._waiting) + self._busy
            self._waiting.clear()
            self._closed = True
            self._changed.notify_all()
        for _ in range(lost):
            self._dropped(EXIT)

    def _is_full(self, size: int) -> bool:
        # One artifact larger than the bound is taken where nothing else waits: it is in memory already.
        return bool(self._waiting) and (len(self._waiting) >= self._max_items or self._bytes + size > self._max_bytes)

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="compile-client-publish", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                compiled = self._waiting.popleft()
                self._busy = True
            try:
                self._publish(compiled)
            finally:
                with self._changed:
                    self._bytes -= compiled.total_bytes
                    self._busy = False
                    self._changed.notify_all()


class DaemonStore:
    """Hands artifacts in to the daemon's store, one after the other. Never raises."""

    def __init__(self, config: ClientConfig, channel: ReconnectingChannel, report: ProcessReport) -> None:
        self._config = config
        self._channel = channel
        self._report = report

    def publish(self, compiled: LocalCompile) -> None:
        """Hand in one artifact; count whether it is stored."""
        deadline = Deadline(self._config.graph_timeout_s)
        try:
            with self._channel.exchange(deadline) as connection:
                connection.publish(deadline, compiled)
        except ClientError as error:
            self._report.not_published(error)
        except Exception as error:  # noqa: BLE001 - the class's promise
            fault = InternalError.of(error)
            fault.__cause__ = error
            self._report.not_published(fault)
        else:
            self._report.counters.count_published()
