"""Which cells are done, in files of their own below the daemon's directory, so that a sweep can be gone on with.

What a cell's command would do today is not known from its words: whoever has changed the trainer's code runs its cells
again. That they are stored still, and that torch is the same, is checked.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from compiler_daemon.admin.sweep.cell import CellResult, SweepContext
from compiler_daemon.admin.sweep.plan import Cell


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A cell that an earlier run has finished."""

    environment: str
    keys: Collection[str]


def remember(context: SweepContext, result: CellResult, environ: Mapping[str, str]) -> None:
    """Note that a cell is done, or that it is not; raise `OSError` where that cannot be written."""
    path = _path(context, result.cell, environ)
    if result.failure or result.refused or not result.graphs:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = {
        "cell": result.cell.label,
        "command": result.cell.command,
        "done": time.time(),
        "environment": result.environment,
        "keys": result.keys,
    }
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(document, indent=1) + "\n")
    draft.replace(path)


def recall(context: SweepContext, cell: Cell, environ: Mapping[str, str]) -> Done | None:
    """Return what is known of a finished cell; None where it has to be run."""
    try:
        document = json.loads(_path(context, cell, environ).read_text())
        return Done(environment=document["environment"], keys=document["keys"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(context: SweepContext, cell: Cell, environ: Mapping[str, str]) -> Path:
    return context.folder / "done" / f"{cell.digest}-{_torch(cell, environ)}.json"


def _torch(cell: Cell, environ: Mapping[str, str]) -> str:
    """Return what tells the torch of the cell's interpreter from another; empty where it is not beside the command."""
    program = shutil.which(cell.command[0], path=environ.get("PATH"))
    if program is None:
        return ""
    for version in sorted(Path(program).parent.parent.glob("lib/python3*/site-packages/torch/version.py")):
        return f"{version.stat().st_mtime_ns:x}"
    return ""
