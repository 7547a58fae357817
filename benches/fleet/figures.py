"""What the model is fed with: each number with where it is from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent
_SPEED = _HERE.parent / "results" / "speed"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, its unit, and its source: measured, published, assumed, or arithmetic."""

    value: float
    unit: str
    source: str


def read_figures(path: Path = _HERE / "measured.json", results: Path = _SPEED) -> dict[str, Figure]:
    """Return the figures by name; those that name a file of results have its value."""
    figures = {}
    for name, entry in json.loads(path.read_text()).items():
        value, source = entry.get("value"), entry["source"]
        if "from" in entry:
            file, *keys = entry["from"]
            found: Any = json.loads((results / file).read_text())
            for key in keys:
                found = found[key]
            value, source = found, f"{source} (benches/results/speed/{file}: {', '.join(keys)})"
        figures[name] = Figure(float(value), entry["unit"], source)
    return figures
