"""What one check of `doctor` found, wherever the check is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    level: Level
    check: str
    text: str


ok, note, problem = partial(Finding, "ok"), partial(Finding, "note"), partial(Finding, "problem")
