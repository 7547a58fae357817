"""What a waiting user sees: on a terminal a status line, elsewhere a log line now and then; for short waits nothing."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from compile_client.log import say
from compile_client.transport.deadline import Clock
from compile_client.transport.messages import CompileEvent, Queued, Running

if TYPE_CHECKING:
    from rich.status import Status

SHORT_WAIT_S = 1.0
"""Shorter waits are not worth a word."""

LINE_EVERY_S = 15.0

_terminal = threading.Lock()
"""One status line at a time: graphs that other threads wait for go unmentioned meanwhile."""


class Progress:
    """Tells the user about the wait for one graph; a context manager, used in the waiting thread."""

    def __init__(
        self,
        number: int,
        key: str,
        *,
        terminal: bool | None = None,
        silent: bool = False,
        clock: Clock = time.monotonic,
    ) -> None:
        """`terminal`: whether standard error is one; found out where it is not given. `silent`: nobody waits."""
        self._silent = silent
        self._number = number
        self._key = key
        self._label = f"graph {number} ({key[:8]})"
        self._on_terminal = _is_terminal() if terminal is None else terminal
        self._clock = clock
        self._start = clock()
        self._next_line_s = SHORT_WAIT_S
        self._event: CompileEvent | None = None
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
            _terminal.release()

    def update(self, event: CompileEvent | None) -> None:
        """Show where the compile stands; None says that nothing new is known, only later."""
        self._event = event or self._event
        waited = self._clock() - self._start
        if self._silent or waited < SHORT_WAIT_S:
            return
        if self._on_terminal:
            self._show(self.text(waited))
        elif waited >= self._next_line_s:
            self._next_line_s = waited + LINE_EVERY_S
            say(self.text(waited), event="waiting", graph=self._number, key=self._key, seconds=round(waited, 3))

    def text(self, waited: float) -> str:
        """Return the line after so many seconds of waiting."""
        match self._event:
            case Queued(0):
                return f"{self._label}: waiting for a worker that starts or is busy, {waited:.0f} s so far"
            case Queued(position):
                return f"{self._label}: waiting for a worker, {position} before it, {waited:.0f} s so far"
            case Running(_, phase, expected) if expected > 0:
                if waited > expected:  # an estimate that grows with the clock says nothing
                    return f"{self._label}: {phase}, {waited:.0f} s so far; about {expected:.0f} s were expected"
                return f"{self._label}: {phase}, {waited:.0f} s of about {expected:.0f} s"
            case Running(_, phase, _):
                return f"{self._label}: {phase}, {waited:.0f} s so far"
            case _:
                return f"{self._label}: waiting for the daemon, {waited:.0f} s so far"

    def _show(self, text: str) -> None:
        if self._status is None:
            if not _terminal.acquire(blocking=False):
                return
            from rich.console import Console
            from rich.status import Status

            self._status = Status("", console=Console(stderr=True))
            self._status.start()
        from rich.markup import escape

        self._status.update(escape(f"compile daemon: {text}"))


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # replaced by something simpler, or closed
        return False
