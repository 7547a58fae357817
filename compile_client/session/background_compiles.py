"""Asks the daemon for compiles that nobody here waits for, and remembers the outcome of each.

Guarantees: at most so many requests are under way; `ask` waits for a place, so graphs that wait are never more than
those under way. Every graph that was asked for ends in one row, at the latest when `flush` has returned.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

from compile_client.config import ClientConfig
from compile_client.errors import ClientError, FullError, InternalError
from compile_client.log import logger
from compile_client.reporting.process_report import ProcessReport
from compile_client.transport.deadline import Deadline
from compile_client.transport.messages import CompileEvent, CompileRequest, Refusal
from compile_client.transport.reconnect import ReconnectingChannel

_FULL_WAIT_S = 0.5
"""Before a daemon whose queue is full is asked again for a graph that nobody waits for."""

Outcome = Literal["there", "compiled", "local", "here", "repeated", "refused", "lost"]
"""The daemon had it; has compiled it; torch's own cache had it; torch compiled it here; it was asked for before in this
process; the daemon will not; no answer."""


_TEXTS: dict[Outcome, str] = {
    "there": "stored already",
    "compiled": "compiled by the daemon",
    "local": "in torch's own cache",
    "here": "compiled here",
    "repeated": "asked for before",
    "refused": "refused",
    "lost": "without an answer",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmResult:
    """Says how one graph of this process ended."""

    key: str
    code: str
    """The function that it was traced from."""
    outcome: Outcome
    seconds: float
    """That its compile took, now or once; 0 where nobody knows."""
    why: str = ""
    host: str = ""
    """The other node that compiled it, where the daemon has had it from a shared tier for this process."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking the daemon for one graph."""

    outcome: Outcome
    seconds: float = 0.0
    """That its compile took, now or once."""
    why: str = ""
    host: str = ""


class BackgroundCompiles:
    """Sends graphs to the daemon in the background. Safe to call from any thread."""

    def __init__(self, answer: Callable[[str, bytes], Answer], *, max_in_flight: int) -> None:
        """`answer` asks the daemon; it must not raise."""
        self._answer = answer
        self._places = threading.BoundedSemaphore(max_in_flight)
        self._changed = threading.Condition()
        self._waiting: dict[str, str] = {}
        self._asked: set[str] = set()
        self._rows: list[WarmResult] = []

    def ask(self, key: str, code: str, graph: bytes) -> None:
        """Ask for a graph in the background; return once there is a place for it."""
        with self._changed:
            if key in self._asked:
                self._rows.append(WarmResult(key=key, code=code, outcome="repeated", seconds=0.0))
                return
            self._asked.add(key)
            self._waiting[key] = code
        self._places.acquire()
        threading.Thread(target=self._work, args=(key, graph), name="compile-client-ahead", daemon=True).start()

    def note(self, row: WarmResult) -> None:
        """Remember a graph that was not asked for in this way."""
        with self._changed:
            self._rows.append(row)

    def flush(self, timeout_s: float) -> None:
        """Wait until everything is answered, at most `timeout_s`; what is not by then is lost."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while self._waiting and (remaining := end - time.monotonic()) > 0:
                self._changed.wait(remaining)
            for key, code in self._waiting.items():
                self._rows.append(WarmResult(key=key, code=code, outcome="lost", seconds=0.0, why="no answer in time"))
            self._waiting.clear()

    def as_rows(self) -> list[dict[str, object]]:
        """Return the rows so far, as they stand in the report."""
        with self._changed:
            return [asdict(row) for row in self._rows]

    def line(self) -> str:
        """Return the line for the end of the process; empty where there is nothing to report."""
        with self._changed:
            counts = Counter(row.outcome for row in self._rows)
        if not counts:
            return ""
        parts = ", ".join(f"{counts[outcome]} {text}" for outcome, text in _TEXTS.items() if counts[outcome])
        return f"compile-only, {counts.total()} graph{'' if counts.total() == 1 else 's'}: {parts}"

    def _work(self, key: str, graph: bytes) -> None:
        answer = Answer("lost", why="a fault of the compile client")
        try:
            answer = self._answer(key, graph)
        finally:
            self._places.release()
            with self._changed:
                code = self._waiting.pop(key, None)
                if code is not None:  # else flush has given it up
                    self._rows.append(
                        WarmResult(
                            key=key,
                            code=code,
                            outcome=answer.outcome,
                            seconds=answer.seconds,
                            why=answer.why,
                            host=answer.host,
                        )
                    )
                self._changed.notify_all()


class DaemonCompiler:
    """Has the daemon compile one graph after the other, as `BackgroundCompiles` calls it. Never raises."""

    def __init__(self, config: ClientConfig, channel: ReconnectingChannel, report: ProcessReport) -> None:
        self._config = config
        self._channel = channel
        self._report = report

    def __call__(self, key: str, graph: bytes) -> Answer:
        """Return what came of it."""
        deadline = Deadline(self._config.graph_timeout_s)
        compiled = False

        def on_event(event: CompileEvent | None) -> None:
            nonlocal compiled
            compiled = compiled or event is not None

        request = CompileRequest(kind="graph", key=key, payload=graph, background=True)
        while True:
            try:
                with self._channel.exchange(deadline) as connection:
                    answer = connection.compile(deadline, request, on_event)
            except FullError as error:
                # Nobody waits for this graph, so it can wait itself; the deadline ends it.
                if deadline.remaining() > _FULL_WAIT_S:
                    time.sleep(_FULL_WAIT_S)
                    continue
                return self._lost(error)
            except ClientError as error:
                return self._lost(error)
            except Exception as error:  # noqa: BLE001 - the class's promise
                logger.debug("a fault of the compile client", exc_info=error)
                return self._lost(InternalError.of(error))
            if isinstance(answer, Refusal):
                return Answer("refused", why=f"{answer.reason}: {answer.message}")
            return Answer("compiled" if compiled else "there", answer.manifest.compile_s, host=answer.host)

    def _lost(self, error: ClientError) -> Answer:
        self._report.failed(error, "the graph is not compiled ahead")
        return Answer("lost", why=f"{error.reason}: {error}")
