"""What the client has done in this process so far, for a person: a line, and in a notebook a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from compile_client.reporting.words import GRAPH_WORDS, KERNEL_WORDS

_WORDS = {
    "graphs": "graphs",
    **GRAPH_WORDS,
    "kernels": "Triton kernels",
    **{name: f"kernels {words}" for name, words in KERNEL_WORDS.items()},
}
_REASONS = {"refused": "not taken", "fallbacks": "without the daemon", "kernels_refused": "kernels not taken"}
_CELL = '<td style="text-align:left">{}</td><td style="text-align:right">{}</td>'


@dataclass(frozen=True, slots=True)
class Summary:
    """Holds the counters at one moment. A notebook shows it as a table; `str` is the line of a process's end."""

    line: str
    counters: Mapping[str, Any] = field(repr=False)

    def rows(self) -> list[tuple[str, str]]:
        """Return what is not nothing, in words."""
        found = [(words, str(self.counters[name])) for name, words in _WORDS.items() if self.counters.get(name)]
        for name, words in _REASONS.items():
            found += [(f"{words}: {reason}", str(count)) for reason, count in self.counters.get(name, {}).items()]
        for name, words in (("seconds_saved", "saved"), ("seconds_waited", "waited for the daemon")):
            if self.counters.get(name):
                found.append((words, f"{self.counters[name]:.1f} s"))
        return found

    def __str__(self) -> str:
        return self.line or "nothing was compiled yet"

    def __repr__(self) -> str:
        return f"<{self}>"

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        rows = "".join(f"<tr>{_CELL.format(escape(words), escape(value))}</tr>" for words, value in self.rows())
        return f"<table><caption>compile daemon</caption>{rows}</table>" if rows else f"<p>{escape(str(self))}</p>"
