"""What a scenario finds out: rows of a promise and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Workers = Literal["torch", "pretending", "none"]
"""Who compiles: torch, or a process that speaks the workers' protocol and pretends."""


BROKE_OFF = "broke off"
"""The name of a scenario's row that says that its other rows could not be played."""


@dataclass(kw_only=True)
class Row:
    """One line of the document."""

    name: str
    promise: str
    found: str
    passed: bool | None
    """None where it could not be played here, or makes no sense: `found` says why."""
    workers: Workers = "torch"
    scenario: str = ""
    seconds: float = 0.0
    ran_at: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


def unplayed(name: str, promise: str, why: str) -> Row:
    """Return a row that says why it was not played."""
    return Row(name=name, promise=promise, found=why, passed=None, workers="none")


class Finding:
    """Collects what was looked at: `text` is for the document, and one thing that does not hold fails the row."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._wrong: list[str] = []

    def note(self, text: str) -> None:
        """Add a fact that nothing depends on."""
        self._said.append(text)

    def check(self, holds: object, text: str) -> None:
        """Add a fact that must hold; it is said as it is, so write what was found and not what should be."""
        self._said.append(text)
        if not holds:
            self._wrong.append(text)

    @property
    def passed(self) -> bool:
        return not self._wrong

    @property
    def text(self) -> str:
        """All of it; of a failure, what does not hold."""
        return "; ".join(self._said) if self.passed else "WRONG: " + "; ".join(self._wrong)


Play = Callable[..., Iterator[Row]]
"""A scenario: called with a `Stage`, it yields its rows one after the other."""
