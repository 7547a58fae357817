"""Puts the committed results of the benches into the README; with `--check` only says whether they are there.

    python tools/readme_tables.py            rewrites the marked places of README.md
    python tools/readme_tables.py --check    exit code 1 where README.md is stale, and nothing is written

`benches/results/demo.json` is the JSON document of `python -m benches.demo` with a field `machine` added;
`benches/results/zoo/zoo.json` is what `make zoo` writes, and `benches/results/speed` holds what `benches.speed --out`
does. Where one is not there, its place says so. No number reaches the README in another way.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_README = _ROOT / "README.md"
_SPEED = _ROOT / "benches" / "results" / "speed"

Results = Mapping[str, Any]
"""A bench's JSON document."""

_DEMO_COLUMNS = {
    "graphs": "graphs",
    "hits": "hits",
    "compiled_by_daemon": "compiled by the daemon",
    "compiled_here": "compiled here",
    "cpp_builds": "C++ builds",
    "triton_compiles": "Triton compiles",
}
_RUN_TITLES = {
    "no_daemon": "without a daemon",
    "daemon_cold": "with an empty daemon",
    "daemon_warm": "with the daemon, again",
    "daemon_absent": "with the daemon stopped",
}


class StaleError(Exception):
    """The README or a results file is not of the form that it should have; the text says where."""


@dataclass(frozen=True, slots=True)
class Place:
    """One marked place of the README and where its contents come from."""

    name: str
    results: Path
    render: Callable[[Results], str]
    command: str

    def contents(self) -> str:
        """Return what belongs between the marks."""
        if not self.results.exists():
            return f"Not measured on this checkout yet: `{self.command}` shows the table."
        try:
            return self.render(json.loads(self.results.read_text()))
        except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
            where = self.results.relative_to(_ROOT)
            raise StaleError(f"{where} is not what the bench writes: {type(error).__name__}: {error}") from error


def _demo(results: Results) -> str:
    runs = results["runs"]
    baseline = {run["name"]: run["seconds"] for run in runs}["no_daemon"]
    rows = [_row("run", "seconds", "of the first", *_DEMO_COLUMNS.values())]
    rows.append("|---|" + "---:|" * (2 + len(_DEMO_COLUMNS)))
    for run in runs:
        title = _RUN_TITLES.get(run["name"], run["name"])
        share = f"{run['seconds'] / baseline:.2f}"
        rows.append(_row(title, f"{run['seconds']:.1f}", share, *(run[column] for column in _DEMO_COLUMNS)))
    equal = "the same bit for bit" if results["losses_equal"] else "**not the same**"
    return "\n".join([*rows, "", f"The losses of the four runs are {equal}. {_machine(results)}"])


def _zoo(results: Results) -> str:
    names = (
        "entries",
        "cases",
        "graphs",
        "compiled_by_daemon",
        "hits",
        "hits_local",
        "compiled_here",
        "given_up_by_torch",
    )
    refused = ", ".join(f"{reason} {count}" for reason, count in sorted(results["refused"].items())) or "none"
    return "\n".join(
        [
            _row(*(name.replace("_", " ") for name in names), "by the daemon", "reasons of the rest"),
            "|" + "---:|" * (len(names) + 1) + "---|",
            _row(*(results[name] for name in names), f"{results['compiled_share']:.1%}", refused),
            "",
            f"Outputs and gradients equal to eager: {'all' if results['all_equal'] else '**not all**'}. "
            f"torch {results['torch']}. {_machine(results)} Each entry: `benches/results/zoo/zoo.md`.",
        ]
    )


_START_TITLES = {
    "eager": "eager, nothing compiled",
    "traced": "traced only: dynamo's graphs run eagerly",
    "torch_cold": "torch, cold",
    "torch_local_warm": "torch, its local cache warm",
    "torch_portable_empty": "torch, its portable cache, empty directories",
    "torch_redis_empty": "torch, its Redis cache, empty directories",
    "daemon_cold": "daemon, cold",
    "daemon_warm_empty": "daemon, warm, empty directories",
    "daemon_warm_local": "daemon, warm, local files",
}


def _startup(results: Results) -> str:
    rows = results["rows"]
    baseline = rows["torch_cold"]["seconds"]
    lines = [_row("start", "seconds", "range", "of a cold torch", "CPU seconds", "C++ builds"), "|---|" + "---:|" * 5]
    for name, title in _START_TITLES.items():
        if (row := rows.get(name)) is None:
            continue
        span = f"{row['seconds_min']:.1f} to {row['seconds_max']:.1f}"
        share = f"{row['seconds'] / baseline:.2f}"
        lines.append(
            _row(title, f"{row['seconds']:.1f}", span, share, f"{row['cpu_s']:.1f}", f"{row['cpp_builds']:.0f}")
        )
    return "\n".join([*lines, "", f"Medians. {_machine(results)} `{results['command']}`"])


def _models(results: Results) -> str:
    rows = results["rows"]
    names = {name: title for name, title in _START_TITLES.items() if f"{name}@{results['models'][0]}" in rows}
    lines = [
        _row("model", "graphs", "C++ builds of a cold torch", *names.values()),
        "|---|" + "---:|" * (2 + len(names)),
    ]
    for model in results["models"]:
        cold = rows[f"torch_cold@{model}"]
        seconds = [rows.get(f"{name}@{model}", {}).get("seconds") for name in names]
        cells = ["" if one is None else f"{one:.1f}" for one in seconds]
        lines.append(_row(model, f"{cold['graphs']:.0f}", f"{cold['cpp_builds']:.0f}", *cells))
    return "\n".join([*lines, "", f"Seconds. {_machine(results)} `{results['command']}`"])


def _goals(results: Results) -> str:
    lines = [_row("bench", "what", "goal", "measured", ""), "|---|---|---:|---:|---|"]
    for goal in results["goals"]:
        verdict = "met" if goal["measured"] <= goal["goal"] else "**missed**"
        lines.append(
            _row(goal["bench"], f"`{goal['what']}`", f"≤ {goal['goal']:g}", f"{goal['measured']:.3g}", verdict)
        )
    return "\n".join([*lines, "", _machine(results)])


def _row(*cells: object) -> str:
    return "| " + " | ".join("?" if cell is None else str(cell) for cell in cells) + " |"


def _machine(results: Results) -> str:
    """The sentence about the machine: text, or a map of facts."""
    machine = results.get("machine", "not recorded")
    text = ", ".join(f"{name} {value}" for name, value in machine.items()) if isinstance(machine, dict) else machine
    return f"Machine: {text}."


_PLACES = (
    Place("demo-table", _ROOT / "benches" / "results" / "demo.json", _demo, "make demo"),
    Place("startup-table", _SPEED / "startup.json", _startup, "make bench"),
    Place("models-table", _SPEED / "models.json", _models, "python -m benches.speed --full --only models"),
    Place("goals-table", _SPEED / "speed.json", _goals, "make bench"),
    Place("zoo-table", _ROOT / "benches" / "results" / "zoo" / "zoo.json", _zoo, "make zoo"),
)


def _filled(text: str, place: Place) -> str:
    start, end = f"<!-- {place.name} -->\n", f"<!-- /{place.name} -->"
    before, opening, rest = text.partition(start)
    _, closing, after = rest.partition(end)
    if not opening or not closing:
        raise StaleError(f"README.md has no place between {start.strip()} and {end}")
    return f"{before}{start}{place.contents()}\n{end}{after}"


def main(argv: list[str] | None = None) -> int:
    """Fill or check the README; return the exit code."""
    parser = argparse.ArgumentParser(description="Put the committed results of the benches into README.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where README.md is stale")
    options = parser.parse_args(argv)
    text = _README.read_text()
    filled = text
    try:
        for place in _PLACES:
            filled = _filled(filled, place)
    except StaleError as error:
        sys.stderr.write(f"readme_tables: {error}\n")
        return 1
    if filled == text:
        return 0
    if options.check:
        sys.stderr.write("README.md is stale: run python tools/readme_tables.py and commit.\n")
        return 1
    _README.write_text(filled)
    return 0


if __name__ == "__main__":
    sys.exit(main())
