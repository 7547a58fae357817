"""A breaker per tier, so that one that fails costs lookups nothing: reads and writes apart.

After a few failures in a row the tier is left alone for a while; then one call is let through, and decides. The whiles
grow, and differ from node to node, so that a tier that comes back is not met by all of them at once. What will not pass
by itself (no right to write, no room, no bucket) opens it at once, and its reason is kept in words.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from compiler_daemon.errors import (
    TierDeniedError,
    TierError,
    TierFullError,
    TierMissingError,
    TierPausedError,
    TooLargeError,
)
from compiler_daemon.text import numbers

Clock = Callable[[], float]
"""Returns monotonic seconds."""

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerConfig:
    """Configures when a breaker opens, and for how long."""

    failures: int = 3
    """In a row."""
    first_pause_s: float = 5.0
    longest_pause_s: float = 300.0
    lasting_pause_s: float = 60.0
    """The first pause after what will not pass by itself."""
    jitter: float = 0.25
    """A pause is shorter or longer by up to this part of it."""
    probe_s: float = 60.0
    """A call that was let through and of which nothing was heard for so long counts no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BreakerView:
    """A breaker in plain values, for `status`."""

    state: State
    failures: int
    """In a row, up to now."""
    opened: int
    """How often it has opened."""
    retry_in_s: float
    reason: str
    """What the last failure said; empty where the last call succeeded."""
    kind: str
    """Of the last failure: the name of its class in a few words, such as `denied`."""


class DirectionBreaker:
    """Keeps one kind of calls, reads or writes, from a tier that has failed. Of one event loop."""

    def __init__(
        self,
        what: str,
        config: BreakerConfig | None = None,
        clock: Clock = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._what = what
        self._config = config or BreakerConfig()
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._opened = 0
        self._pause_s = 0.0
        self._retry_at = 0.0
        self._probe_until = 0.0
        self._cause: TierError | None = None
        self._open = False

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Let one call through and learn from how it ends; raise `TierPausedError` where none is let through.

        A call that is cancelled teaches nothing.
        """
        probe = self._admit()
        try:
            yield
        except TooLargeError:
            self.succeeded()  # it has answered
            raise
        except TierError as error:
            self.failed(error, probe=probe)
            raise
        except BaseException:
            if probe:
                self._probe_until = 0.0
            raise
        self.succeeded()

    def allows(self) -> bool:
        """Return whether a call would be let through now."""
        now = self._clock()
        return not self._open or (now >= self._retry_at and now >= self._probe_until)

    def succeeded(self) -> None:
        """Note that the tier has answered, whatever it found."""
        self._failures = 0
        self._pause_s = 0.0
        self._probe_until = 0.0
        self._cause = None
        self._open = False

    def failed(self, error: TierError, *, probe: bool = False) -> None:
        """Note that it has not, or that it will not.

        Of many calls that were under way at once, those that fail after it has opened do not make the pause longer.
        """
        if isinstance(error, TierPausedError):
            return
        self._failures += 1
        self._cause = error
        if self._open and not probe:
            return
        lasting = isinstance(error, TierDeniedError | TierFullError | TierMissingError)
        if lasting or probe or self._failures >= self._config.failures:
            self._pause(self._config.lasting_pause_s if lasting else self._config.first_pause_s)

    def late(self, budget_s: float) -> None:
        """Note that a lookup has stopped waiting, though the call goes on; its own end is noted apart.

        A tier that hangs would otherwise cost every lookup the whole budget until the engine gives up.
        """
        if not self._open:
            self.failed(TierError(f"no answer within {numbers.seconds(budget_s)}"))

    def view(self) -> BreakerView:
        """Return its state."""
        now = self._clock()
        state: State = "closed" if not self._open else "open" if now < self._retry_at else "half-open"
        return BreakerView(
            state=state,
            failures=self._failures,
            opened=self._opened,
            retry_in_s=max(0.0, self._retry_at - now) if self._open else 0.0,
            reason=str(self._cause) if self._cause else "",
            kind=_kind(self._cause),
        )

    def _admit(self) -> bool:
        """Return whether the call that is let through is the one that decides."""
        if not self._open:
            return False
        if not self.allows():
            left = numbers.seconds(max(0.0, self._retry_at - self._clock()))
            raise TierPausedError(f"{self._what} of the tier are paused for another {left}: {self._cause}")
        self._probe_until = self._clock() + self._config.probe_s
        return True

    def _pause(self, first_s: float) -> None:
        self._pause_s = min(2 * self._pause_s, self._config.longest_pause_s) if self._pause_s else first_s
        self._pause_s = max(self._pause_s, first_s)
        spread = 1 + self._config.jitter * (2 * self._jitter() - 1)
        self._retry_at = self._clock() + self._pause_s * spread
        self._probe_until = 0.0
        self._opened += not self._open
        self._open = True


class TierBreaker:
    """The two breakers of a tier. One that may only be read goes on being read."""

    def __init__(
        self,
        config: BreakerConfig | None = None,
        clock: Clock = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.reads = DirectionBreaker("reads", config, clock, jitter)
        self.writes = DirectionBreaker("writes", config, clock, jitter)


def _kind(error: TierError | None) -> str:
    if error is None:
        return ""
    name = type(error).__name__.removeprefix("Tier").removesuffix("Error").lower()
    return name or "failed"
