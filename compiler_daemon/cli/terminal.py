"""How figures and progress are shown to a person: on a terminal only, and on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress

_UNITS = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"))


def size_text(size: int) -> str:
    """Return bytes for people: `1.2 MB`."""
    return decimal(size)


def seconds_text(seconds: float) -> str:
    """Return a duration for people: `43 s`, `2.5 h`, `12 d`."""
    for unit, name in _UNITS:
        if seconds >= unit:
            count = seconds / unit
            return f"{count:.1f} {name}" if count < 10 and name != "d" else f"{count:.0f} {name}"
    return f"{seconds:.1f} s" if 0 < seconds < 10 else f"{seconds:.0f} s"


def age_text(when: float) -> str:
    """Return how long ago something was: `3 h ago`."""
    seconds = time.time() - when
    return "now" if seconds < 1 else f"{seconds_text(seconds)} ago"


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how many of how many are done, where stderr is a terminal; yield what is told so."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
