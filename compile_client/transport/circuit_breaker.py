"""A circuit breaker: a daemon that fails is left alone for a while, so that its failures cost a run little.

After a few failures in a row, or one that will not pass by itself, the breaker opens: nothing is asked. When its pause
is over, one attempt decides: success closes it, another failure doubles the pause. An absent daemon is no such failure:
looking for it costs microseconds, so it is looked for again after a moment, and counted as absent in between.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from compile_client.errors import AbsentError, BreakerOpenError, ClientError, RetryPolicy
from compile_client.transport.deadline import Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerConfig:
    """Configures when the circuit breaker opens, and for how long."""

    failures: int = 2
    """In a row. A stopped daemon costs a full deadline each time; one late answer of a busy machine is forgiven."""
    first_pause_s: float = 10.0
    longest_pause_s: float = 300.0
    absent_pause_s: float = 1.0


class CircuitBreaker:
    """Keeps calls from a daemon that has failed repeatedly, for a while. Safe to call from any thread."""

    def __init__(self, config: BreakerConfig | None = None, clock: Clock = time.monotonic) -> None:
        self._config = config or BreakerConfig()
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pause_s = self._config.first_pause_s
        self._closed_from = clock()
        self._cause: ClientError | None = None

    def check(self) -> None:
        """Return where the daemon may be asked; raise `BreakerOpenError`, or `AbsentError` where it was absent."""
        with self._lock:
            wait_s = self._closed_from - self._clock()
            cause = self._cause
            if wait_s <= 0 or cause is None:
                return
        if isinstance(cause, AbsentError):
            raise AbsentError(str(cause))
        raise BreakerOpenError(f"not asked for another {wait_s:.0f} s after: {cause}")

    def succeeded(self) -> None:
        """Note that the daemon gave an answer, whichever."""
        with self._lock:
            self._failures = 0
            self._pause_s = self._config.first_pause_s
            self._cause = None

    def failed(self, error: ClientError) -> None:
        """Note that the daemon did not give a usable answer."""
        if isinstance(error, BreakerOpenError):
            return
        with self._lock:
            if isinstance(error, AbsentError):
                self._open(error, self._config.absent_pause_s)
            elif error.retry is RetryPolicy.NEXT_GRAPH:
                self._failures = 0
            else:
                self._failures += 1
                if error.retry is RetryPolicy.BACK_OFF_NOW or self._failures >= self._config.failures:
                    self._open(error, self._pause_s)
                    self._pause_s = min(2 * self._pause_s, self._config.longest_pause_s)

    def _open(self, error: ClientError, pause_s: float) -> None:
        self._cause = error
        self._closed_from = self._clock() + pause_s
