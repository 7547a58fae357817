"""docs/trust/fleet.json and fleet.md: rows of earlier runs stay until they are played again."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benches.harness.machine import machine
from tests.e2e.conftest import REPOSITORY
from tests.fleet_suite.row import BROKE_OFF, Row

PAGE = REPOSITORY / "docs" / "trust" / "fleet.md"

_HEAD = """# A small fleet, played

Written by `make fleet` (`{command}`); do not edit. **{passed} of {played} rows passed**,
{unplayed} were not played for the reason given. torch {torch}, Python {python}, {cpu}, {cores} cores that others
used as well, from {first} to {last}; [fleet.json](fleet.json) has each row's time.

Real daemons, each with a directory and a signer of its own, on one machine; real engines: a directory, Debian's
`redis-server`, SeaweedFS as S3, Dask, Slurm. Where *compiles* says *torch*, trainers are real and torch compiles; where
it says *pretending*, the daemons' workers speak the workers' protocol and make bytes without torch, since the row is
about who asks whom: what is counted there is a journal of every job that a worker was given.

"""

_WEAKENED = """## Seen to fail

Each scenario was also played against a product with one part taken out (`--weakened PART`: a copy of the package with
a line or two changed). A row that passes there as well would say nothing.

"""


def former() -> dict[str, Any]:
    """Return what is written there now; empty rows where nothing is."""
    path = PAGE.with_suffix(".json")
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return {"rows": [], "weakened": [], **found}


def write(
    rows: Sequence[Row], weakened: Sequence[Mapping[str, str]], *, command: str, scenarios: Mapping[str, str]
) -> None:
    """Merge what was played into both files. `scenarios` are all there are, by name, each in a sentence."""
    here = machine()
    document = former()
    kept = {(row["scenario"], row["name"]): row for row in document["rows"] if row["scenario"] in scenarios}
    for scenario in {row.scenario for row in rows}:
        kept.pop((scenario, BROKE_OFF), None)  # it goes with the next row that is played
    kept |= {(row.scenario, row.name): dataclasses.asdict(row) for row in rows}
    order = list(scenarios)
    document["rows"] = sorted(kept.values(), key=lambda row: order.index(row["scenario"]))
    failures = {(each["scenario"], each["part"]): each for each in document["weakened"]}
    failures |= {(each["scenario"], each["part"]): dict(each) for each in weakened}
    document["weakened"] = sorted(failures.values(), key=lambda each: order.index(each["scenario"]))
    document |= {"command": command, "written_at": time.strftime("%Y-%m-%d", time.gmtime()), "machine": here}
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    PAGE.write_text(_markdown(document, scenarios))


def _markdown(document: Mapping[str, Any], scenarios: Mapping[str, str]) -> str:
    rows = document["rows"]
    played = [row for row in rows if row["passed"] is not None]
    times = sorted(row["ran_at"] for row in rows) or [""]
    lines = [
        _HEAD.format(
            command=document["command"],
            passed=sum(row["passed"] for row in played),
            played=len(played),
            unplayed=len(rows) - len(played),
            first=times[0],
            last=times[-1],
            **{name: document["machine"][name] for name in ("torch", "python", "cpu", "cores")},
        )
    ]
    for name, sentence in scenarios.items():
        of_it = [row for row in rows if row["scenario"] == name]
        if of_it:
            lines.append(f"## {name}\n\n{sentence}\n")
            lines.append(_table(of_it))
    if document["weakened"]:
        cells = [(each["scenario"], each["what"], each["failed"]) for each in document["weakened"]]
        lines.append(_WEAKENED + _lines(("scenario", "taken out", "what failed then"), cells))
    return "\n".join(lines)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    promises = list(dict.fromkeys(row["promise"] for row in rows))
    head = "".join(f"{promise}.\n" for promise in promises) + "\n" if len(promises) == 1 else ""
    columns = ("row", *(() if head else ("promise",)), "found", "compiles", "s", "")
    cells = [
        (
            row["name"],
            *(() if head else (row["promise"],)),
            row["found"],
            row["workers"],
            f"{row['seconds']:.0f}",
            {True: "passed", False: "**failed**", None: "not played"}[row["passed"]],
        )
        for row in rows
    ]
    return head + _lines(columns, cells)


def _lines(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)]) + "\n"
