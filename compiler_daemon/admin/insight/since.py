"""Figures from a moment on: `stats --zero` notes what they are, and what was then is taken off.

The daemon's own counters never go back: whoever collects them would take that for a restart.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compiler_daemon.admin.answers import Figures
from compiler_daemon.endpoint import read_note, write_private

NAME = "figures-since.json"
_AS_THEY_ARE = frozenset({"artifacts", "store_bytes", "store_max_bytes", "slowest", "last_runs", "counters", "seen"})
"""What is, as against what has happened; the counters are the daemon's."""
_NAMED_BY = "program"
_REASONS = ("_by_reason", "fallbacks", "here")


def begin_again(directory: Path, now: Figures) -> None:
    """Note the figures of this moment; raise `DirectoryError` where that cannot be written."""
    write_private(directory / NAME, json.dumps({"at": time.time(), "figures": now.document}).encode())


def since_then(directory: Path, now: Figures) -> tuple[Figures, float]:
    """Return the figures since the moment that was noted, and when that was; all of them and 0 where none was."""
    note = read_note(directory / NAME)
    at, before = note.get("at"), note.get("figures")
    # A store that was made anew has counted less than was noted: it begins with itself.
    if not isinstance(at, float) or not isinstance(before, dict) or _fell(now.document, before):
        return now, 0.0
    return Figures.of({name: _less(name, value, before.get(name)) for name, value in now.document.items()}), at


def _fell(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return any(now.get(name, 0) < before.get(name, 0) for name in ("hits", "misses", "compiled", "published"))


def _less(name: str, now: Any, before: Any) -> Any:
    """Return what was added: of numbers, of maps part by part, of lists of programs by their names."""
    if name in _AS_THEY_ARE:
        return now
    if isinstance(now, int | float) and isinstance(before, int | float):
        return max(type(now)(0), now - before)
    if isinstance(now, dict) and isinstance(before, dict):
        parts = {part: _less(part, value, before.get(part)) for part, value in now.items()}
        return {part: value for part, value in parts.items() if value} if name.endswith(_REASONS) else parts
    if isinstance(now, list) and isinstance(before, list):
        earlier = {one.get(_NAMED_BY): one for one in before if isinstance(one, dict)}
        return [one for one in (_less("", each, earlier.get(each.get(_NAMED_BY))) for each in now) if one.get("runs")]
    return now
