"""Writes what was played as a page and as data: docs/trust/twins.md and twins.json."""

from __future__ import annotations

import dataclasses
import json
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tests.e2e.conftest import REPOSITORY
from tests.twins.judging import Result

DOCUMENT = REPOSITORY / "docs" / "trust" / "twins.md"
_CASES = DOCUMENT.with_name("cases.json")
_PARTS = DOCUMENT.with_name("weakened.json")


_ABOUT = """# Twins

Written by `make twins`; do not edit. Pairs of programs that differ in exactly one thing, at one position, with static
or dynamic sizes. Each is run plainly, without a daemon; then A and B, and both again, on one daemon; and B and A on
another one; every process with empty inductor and Triton directories but for torch's probes of the processor. What a
program prints (values, gradients, dtypes, strides, shared memory, exceptions with their step, random streams
afterwards) must be the same text as plainly, with the same exit code. Harmless twins must be served each other's
artifacts, and a warm run must not compile again. A pair is *telling* where A and B print different things plainly: then
an exchange shows.

Programs with up to four pairs of one thing are one process. Processes are forks of one that has imported torch and
compiled nothing, except where the thing is read when torch is imported. All share a folder with torch's precompiled
header, and a g++ that builds equal sources once (`tests/twins/compilers.py`).

What was confused before, by kind, and what keeps it apart now: [log](../log.md), "Twins"."""


def summary(results: Sequence[Result]) -> dict[str, int]:
    """Return the numbers of the last line."""
    return {
        "pairs": len(results),
        "things": len({result.thing for result in results}),
        "differences": sum(bool(result.differences) for result in results),
        "lost": sum(bool(result.lost) for result in results),
    }


def write(results: Sequence[Result], *, command: str, seed: int, commits: Sequence[str], drawn: int) -> None:
    """Write both files; data of other versions of torch stay, and those of this version are replaced."""
    path = DOCUMENT.with_suffix(".json")
    runs: dict[str, Any] = json.loads(path.read_text())["runs"] if path.exists() else {}
    runs[version("torch")] = {
        "command": command,
        "seed": seed,
        "commit": ", ".join(commits),
        "drawn": drawn,
        "ended": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "python": platform.python_version(),
        **summary(results),
        "results": [dataclasses.asdict(result) for result in sorted(results, key=lambda one: (one.kind, one.name))],
    }
    DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"runs": runs}, indent=1, sort_keys=True) + "\n")
    DOCUMENT.write_text(page(runs))


def write_weakened(found: Mapping[str, str], *, command: str) -> None:
    """Write what was found with each part left out; rows of other parts stay."""
    before = json.loads(_PARTS.read_text())["parts"] if _PARTS.exists() else {}
    run = {"command": command, "commit": commit(), "torch": version("torch"), "parts": {**before, **found}}
    _PARTS.write_text(json.dumps(run, indent=1) + "\n")
    path = DOCUMENT.with_suffix(".json")
    DOCUMENT.write_text(page(json.loads(path.read_text())["runs"] if path.exists() else {}))


def page(runs: dict[str, Any]) -> str:
    """Return the page of all runs, by version of torch."""
    played = "Each pair's outcome is in [twins.json](twins.json)."
    lines = [_ABOUT, "", played if runs else "The whole was not played in one run yet: `make test` has a slice."]
    for torch, run in sorted(runs.items()):
        results = [Result(**row) for row in run["results"]]
        lines += [
            "",
            f"## torch {torch}",
            "",
            _headline(run),
            "",
            *_kinds(results),
            *_positions(results),
            *_faults(results),
        ]
    return "\n".join([*lines, *_weakened(), *_cases()]) + "\n"


def _weakened() -> list[str]:
    """Return what the harness found where a part of the key was left out."""
    if not _PARTS.exists():
        return []
    run = json.loads(_PARTS.read_text())
    lines = [
        *("", "## A weakened key", ""),
        f"`{run['command']}` on commit {run['commit']}, torch {run['torch']}: client and workers leave one part of the "
        "key out, and the twins that it keeps apart are played until a difference is found.",
        *("", "| part | found |", "|---|---|"),
    ]
    told = {part: said.replace("|", "/") or "**nothing**" for part, said in run["parts"].items()}
    return lines + [f"| `{part}` | {said} |" for part, said in told.items()]


def _cases() -> list[str]:
    """Return the small programs that were written after public reports, by version of torch."""
    if not _CASES.exists():
        return []
    runs = json.loads(_CASES.read_text())
    specs = sorted({spec for run in runs.values() for spec in run["outcomes"]})
    heads = [f"torch {torch} ({run['ended']}, Python {run['python']})" for torch, run in sorted(runs.items())]
    lines = [
        *("", "## Small programs after public reports", ""),
        "`tools/cases.py` runs each plainly, against a cold daemon and warm, in both orders: the last line and the "
        "exit code must be as plainly.",
        *("", f"| program | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)),
    ]
    for spec in specs:
        told = [run["outcomes"].get(spec, "not run") for _, run in sorted(runs.items())]
        lines.append(f"| `{spec}` | {' | '.join(told)} |")
    return lines


def _headline(run: dict[str, Any]) -> str:
    return (
        f"`{run['command']}` on commit {run['commit']}, ended {run['ended']}, Python {run['python']}: "
        f"{run['pairs']} of {run['drawn']} pairs that were drawn, of {run['things']} things, "
        f"**{run['differences']} differ**, {run['lost']} lost a hit."
    )


def _kinds(results: Sequence[Result]) -> list[str]:
    lines = [
        "| kind | things | pairs | telling | end in an error plainly | differ | hits lost "
        "| compiled in the program itself, by reason |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for kind in sorted({result.kind for result in results}):
        own = [result for result in results if result.kind == kind]
        reasons = Counter[str]()
        for result in own:
            reasons.update(result.refused)
        lines.append(
            f"| {kind} | {len({one.thing for one in own})} | {len(own)} | {sum(one.telling for one in own)} | "
            f"{sum(one.raises for one in own)} | "
            f"{sum(bool(one.differences) for one in own)} | {sum(bool(one.lost) for one in own)} | "
            f"{', '.join(f'{name} {count}' for name, count in reasons.most_common())} |"
        )
    return lines


def _positions(results: Sequence[Result]) -> list[str]:
    places = Counter((result.position, result.times) for result in results)
    times = sorted({result.times for result in results})
    lines = ["", "| position | " + " | ".join(times) + " |", "|---|" + "---:|" * len(times)]
    return lines + [
        f"| {position} | " + " | ".join(str(places[position, time]) for time in times) + " |"
        for position in sorted({result.position for result in results})
    ]


def _faults(results: Sequence[Result]) -> list[str]:
    found = [result for result in results if not result.passed]
    idle = sorted(result.name for result in results if not result.graphs)
    lines = ["", f"No graph was compiled in {len(idle)} pairs: {'; '.join(idle)}."] if idle else []
    if not found:
        return [*lines, "", "Nothing differs, and no hit was lost."]
    lines += ["", "What is wrong:", ""]
    for result in found:
        said = [*result.differences, *(f"hit lost: {lost}" for lost in result.lost)]
        lines.append(
            f"- **{result.name}** ({result.kind}): {said[0]}" + (f", and {len(said) - 1} more" if said[1:] else "")
        )
    return lines


def commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
