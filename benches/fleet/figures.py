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
    """Return the figures by name; those that name a file of results have the sum of what is named in it."""
    figures = {}
    for name, entry in json.loads(path.read_text()).items():
        value, source = entry.get("value"), entry["source"]
        if file := entry.get("file"):
            document = json.loads((results / file).read_text())
            value = sum(_at(document, keys) for keys in entry["sum"]) / entry.get("per", 1)
            names = " + ".join(" ".join(keys) for keys in entry["sum"])
            source = f"{source} (`benches/results/speed/{file}`: {names})"
        figures[name] = Figure(float(value), entry["unit"], source)
    return figures


def _at(document: Any, keys: list[str]) -> float:
    for key in keys:
        document = document[key]
    return float(document)
