"""What the shell offers while a key or a program is typed: asked of the running daemon, in little time, or nothing.

A shell that completes must never hang or print: whatever goes wrong is an empty list.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from compiler_daemon.store import ArtifactRow

_CALL_S = 1.0
"""Longer than any daemon on this machine takes, and shorter than a person waits for a tab."""

_OFFERED = 200


def complete_key(context: typer.Context, incomplete: str) -> Iterable[tuple[str, str]]:
    """Offer ids, newest first; keys where what is typed begins one."""
    rows = _rows(context)
    offered = [(row.digest[:12], row.program or row.key[:16]) for row in rows if row.digest.startswith(incomplete)]
    if incomplete and not offered:
        offered = [(row.key, row.program or row.digest[:12]) for row in rows if row.key.startswith(incomplete)]
    return [(one, _words(words)) for one, words in offered[:_OFFERED]]


def complete_program(context: typer.Context, incomplete: str) -> Iterable[str]:
    """Offer the programs that brought something."""
    programs = dict.fromkeys(row.program for row in _rows(context) if row.program.startswith(incomplete))
    return [name for name in programs if name and name == _words(name)][:_OFFERED]


KeyArgument = Annotated[
    str,
    typer.Argument(metavar="KEY", help="A key, an id, or its beginning.", autocompletion=complete_key),
]
KeyArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY...", help="Keys or ids, or their beginnings.", autocompletion=complete_key),
]


def _rows(context: typer.Context) -> list[ArtifactRow]:
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.inventory.calls import InventoryClient
    from compiler_daemon.config import DaemonLocation
    from compiler_daemon.errors import DaemonError

    given: dict[str, Any] = context.params
    directory = given.get("directory")
    try:
        place = DaemonLocation.resolve(
            os.environ, directory=Path(directory) if directory else None, address=given.get("address")
        )
        with OperatorClient.of(place, call_s=_CALL_S) as operator:
            return InventoryClient(operator, call_s=_CALL_S).artifacts()
    except (DaemonError, OSError, ValueError):
        return []


def _words(text: str) -> str:
    return "".join(c for c in text if c.isprintable())
