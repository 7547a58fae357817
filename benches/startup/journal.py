"""What a model's measurement has done so far, in its folder: it may be stopped at any time, and goes on from there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benches.harness.measure import BenchError


class Journal:
    """A line of JSON for each start that came to its end. What was cut off leaves none, and is done again."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        """Raise `BenchError` where the folder is of another measurement than `about` says."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "starts.jsonl"
        self._lines: list[dict[str, Any]] = []
        if self._path.exists():
            self._lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        if not self._lines:
            self._add({"about": about})
        if (begun := self._lines[0]["about"]) != about:
            raise BenchError(f"{folder} is of another measurement: {begun}, and not {about}")

    def figures(self, row: str, number: int) -> dict[str, Any] | None:
        """Return what a row came to in a round; None where it was not run."""
        return next((line for line in self._lines if line.get("row") == row and line["round"] == number), None)

    def measured(self, row: str, number: int, figures: dict[str, Any]) -> dict[str, Any]:
        """Keep what a row came to in a round, and return it as it is kept."""
        return self._add({"row": row, "round": number, **figures})

    def left(self, what: str) -> str | None:
        """Return what a start has left behind for others, the last time that it was run."""
        return next((line["there"] for line in reversed(self._lines) if line.get("left") == what), None)

    def leave(self, what: str, there: str = "") -> None:
        """Note that a start has left something behind for others."""
        self._add({"left": what, "there": there})

    def _add(self, line: dict[str, Any]) -> dict[str, Any]:
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._lines.append(line)
        return line
