"""What the client says: each kind of trouble once, in plain words, through `logging`.

The logger is `compile_client`. Where the program has set up logging, its handlers get the records; where it has not,
they go to standard error as they are. Repetitions of what was said are logged at debug.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable

from compile_client.errors import BreakerOpenError, ClientError

logger = logging.getLogger("compile_client")


class _PlainHandler(logging.Handler):
    """Writes to standard error, unless the program has handlers of its own on the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers:
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # closed, or replaced by something without a write
            return


_PLAIN = _PlainHandler()


def set_up_logging(level: int) -> None:
    """Let the logger speak from `level` on. Calling it again changes only the level."""
    logger.setLevel(level)
    if _PLAIN not in logger.handlers:
        logger.addHandler(_PLAIN)


def say(text: str, level: int = logging.INFO) -> None:
    """Log one line that tells who speaks, whichever format the program's handlers have."""
    logger.log(level, "compile daemon: %s", text)


class Notices:
    """Remembers what was said in this process. Safe to call from any thread."""

    def __init__(self, said: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._said = set(said)

    def said(self) -> frozenset[str]:
        """Return the kinds that were said; a forked child takes them over instead of repeating them."""
        return frozenset(self._said)

    def trouble(self, error: ClientError, consequence: str) -> None:
        """Say what is wrong, what happens instead and what to do, once for each reason."""
        text = ". ".join(part.rstrip(".") for part in (f"{error}; {consequence}", error.advice) if part) + "."
        # That the breaker is open follows from a trouble that was said: it is news for debugging only.
        self.once(error.reason, text, logging.DEBUG if isinstance(error, BreakerOpenError) else logging.WARNING)

    def once(self, kind: str, text: str, level: int = logging.WARNING) -> None:
        """Log `text` at `level` the first time for this kind, at debug after that."""
        with self._lock:
            first = kind not in self._said
            self._said.add(kind)
        say(text, level if first else logging.DEBUG)
