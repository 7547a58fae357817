"""Writes the table of metrics in docs/metrics.md from what the endpoint gives; with --check only says if it is right.

python tools/metrics_tables.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from compiler_daemon.http.prometheus import families

_DOCUMENT = Path(__file__).parents[1] / "docs" / "metrics.md"
_BEGIN, _END = "<!-- metrics: begin -->\n", "<!-- metrics: end -->\n"


def table() -> str:
    """Return the table as Markdown."""
    rows = ["| name | kind | label | what it says |", "|---|---|---|---|"]
    for family in families():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in family._labelnames)  # the library has no other way to say it
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows) + "\n"


def document(text: str) -> str:
    """Return the document with the table as it should be."""
    head, _, rest = text.partition(_BEGIN)
    _, _, tail = rest.partition(_END)
    return f"{head}{_BEGIN}\n{table()}\n{_END}{tail}"


def main() -> int:
    """Write or check; return the exit code."""
    present = _DOCUMENT.read_text(encoding="utf-8")
    wanted = document(present)
    if "--check" in sys.argv:
        if present != wanted:
            sys.stderr.write("docs/metrics.md is not up to date: python tools/metrics_tables.py\n")
            return 1
    else:
        _DOCUMENT.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
