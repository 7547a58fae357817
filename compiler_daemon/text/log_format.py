"""The log's lines: one for each record, whatever is in it.

Messages quote clients, workers and compilers. Control characters are written as escapes, so that no text begins a line
of its own or speaks to a terminal; the lines of a traceback are set off.
"""

from __future__ import annotations

import logging

DAEMON_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
WORKER_FORMAT = "%(asctime)s %(levelname)s %(message)s"

_SET_OFF = "    | "


def escaped(text: str) -> str:
    """Return the text on one line, as Python would write what cannot be shown."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


class PlainFormatter(logging.Formatter):
    """Formats records so that each line that is not set off is one record's."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, and below it the lines of its traceback."""
        record.message = record.getMessage()
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        lines = [escaped(self.formatMessage(record))]
        below = [self.formatException(record.exc_info)] if record.exc_info else []
        below += [self.formatStack(record.stack_info)] if record.stack_info else []
        # `splitlines` knows more ends of lines than a terminal does, so that each of them is set off.
        lines += [f"{_SET_OFF}{escaped(line)}" for text in below for line in text.splitlines()]
        return "\n".join(lines)


def handler(text_format: str) -> logging.Handler:
    """Return what writes records to the standard error."""
    made = logging.StreamHandler()
    made.setFormatter(PlainFormatter(text_format))
    return made


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
