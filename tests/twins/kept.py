"""Outcomes of twins that are kept from one session to the next, because playing a whole draw takes hours.

The file has a line of JSON for each pair, with torch's version and the commit that was played. Only pairs that passed
are left out the next time; a pair that differed, or lost a hit, is played again.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.twins.judging import Result


@dataclass(frozen=True)
class Kept:
    """An outcome, and the commit that was played."""

    result: Result
    commit: str


def load(path: Path) -> dict[str, Kept]:
    """Return the pairs that passed earlier with this torch, by name; a later outcome replaces an earlier one."""
    found: dict[str, Kept] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        row = json.loads(line)
        if row["torch"] != version("torch"):
            continue
        result = Result(**row["result"])
        found.pop(result.name, None)
        if result.passed:
            found[result.name] = Kept(result, row["commit"])
    return found


def append(path: Path, result: Result, commit: str) -> None:
    """Add an outcome to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row = {"torch": version("torch"), "commit": commit, "result": dataclasses.asdict(result)}
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
