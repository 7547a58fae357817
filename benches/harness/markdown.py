"""Markdown reports: tables, numbers, and the command that a report is of."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others numbers."""
    align = ["---", *["---:"] * (len(header) - 1)]
    lines = [header, align, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


PLACES = {"--out", "--resume"}


def command() -> str:
    """Return the command that started this process, as someone would type it."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    start = f"python -m {module.name.removesuffix('.__main__')}" if module is not None else f"python {sys.argv[0]}"
    arguments, skip = [], False
    for argument in sys.argv[1:]:
        # Where the results went says nothing about how they were made, and names a place on this machine.
        name = argument.partition("=")[0]
        if not skip and name not in PLACES:
            arguments.append(argument)
        skip = argument in PLACES
    return " ".join([start, *arguments])


def number(value: float | None) -> str:
    """Return a number with four significant digits, or a dash for a missing one."""
    return "-" if value is None else f"{value:.4g}"
