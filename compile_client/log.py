"""What the client logs: each kind of failure once, in plain words, through `logging`.

The logger is `compile_client`. Where the program has set up logging, on the root logger or on this one, its handlers
get the records, and nothing is written besides; where it has not, they go to standard error as they are. A level that
the program gave the logger stays, unless `TORCH_COMPILE_CLIENT_LOG` names one. Repetitions are logged
at debug.

Records carry what they speak of as attributes, for handlers that write JSON or filter: `daemon_event` always
("trouble", "compiled_here", "waiting", "graph", "summary", ...), and where it applies `daemon_reason`, `daemon_key`,
`daemon_graph` (its number in this process) and `daemon_seconds`.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterable

from compile_client.errors import BreakerOpenError, ClientError

logger = logging.getLogger("compile_client")


class _PlainHandler(logging.Handler):
    """Writes to standard error, unless the program has handlers of its own on the root logger or on ours."""

    def emit(self, record: logging.LogRecord) -> None:
        if (logger.propagate and logging.getLogger().handlers) or any(other is not self for other in logger.handlers):
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError, AttributeError):  # closed, or replaced by something without a write
            return


_PLAIN = _PlainHandler()


_given: int | None = None
"""The level that was set here last."""


def set_up_logging(level: int | None) -> None:
    """Let the logger speak from `level` on; None keeps the program's level, else stands for info.

    Calling it again changes only the level.
    """
    global _given  # noqa: PLW0603 - the logger is the process's as well
    if level is not None or logger.level in (logging.NOTSET, _given):
        _given = logging.INFO if level is None else level
        logger.setLevel(_given)
    if _PLAIN not in logger.handlers:
        logger.addHandler(_PLAIN)


def say(text: str, level: int = logging.INFO, *, event: str = "note", **fields: object) -> None:
    """Log one line that tells who speaks, whichever format the program's handlers have.

    `event` and `fields` become attributes of the record, with `daemon_` before their names.
    """
    extra = {f"daemon_{name}": value for name, value in fields.items()}
    logger.log(level, "compile daemon: %s", text, extra={"daemon_event": event, **extra})


class Notices:
    """Says each kind of thing once in this process. Safe to call from any thread."""

    def __init__(self, logged: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._logged = set(logged)

    def logged(self) -> frozenset[str]:
        """Return the kinds that were logged; a forked child takes them over instead of repeating them."""
        return frozenset(self._logged)

    def failure(self, error: ClientError, consequence: str) -> None:
        """Say what is wrong, what happens instead and what to do, once for each reason."""
        text = ". ".join(part.rstrip(".") for part in (f"{error}; {consequence}", error.advice) if part) + "."
        # That the breaker is open follows from a failure that was logged: it is news for debugging only.
        level = logging.DEBUG if isinstance(error, BreakerOpenError) else logging.WARNING
        self.once(error.reason, text, level, event="trouble", reason=error.reason)

    def once(
        self, kind: str, text: str, level: int = logging.WARNING, *, event: str = "note", **fields: object
    ) -> None:
        """Log `text` at `level` the first time for this kind, at debug after that."""
        with self._lock:
            first = kind not in self._logged
            self._logged.add(kind)
        say(text, level if first else logging.DEBUG, event=event, **fields)
