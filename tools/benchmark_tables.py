"""Puts the committed results of the benches into README.md and docs/benchmarks.md; with `--check` only compares.

    python tools/benchmark_tables.py            rewrites the marked places of both
    python tools/benchmark_tables.py --check    exit code 1 where one is stale, and nothing is written

`benches/results/demo.json` is the JSON document of `python -m benches.demo` with a field `machine` added;
`benches/results/zoo/zoo.json` is what `make zoo` writes, and `benches/results/speed` holds what `benches.speed --out`
does; `benches/results/first_run.json` and `first_run_kept.json` are what `benches.first_run --out` writes. Where one
is not there, its place says so. No number reaches a document in another way.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_README = _ROOT / "README.md"
_PAGE = _ROOT / "docs" / "benchmarks.md"
_FIRST = _ROOT / "benches" / "results"
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
    """A document or a results file is not of the form that it should have; the text says where."""


@dataclass(frozen=True, slots=True)
class Place:
    """One marked place of a document and where its contents come from."""

    document: Path
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
        "traced_again",
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


_FIRST_TITLES = {
    "torch": "torch, no daemon",
    "run": "`compiler-daemon run`, no daemon before",
    "auto": "`TORCH_COMPILE_CLIENT=auto`, no daemon before",
    "served": "a daemon that has just come up",
    "second": "a later process, empty caches",
}


def _first_run(results: Results) -> str:
    rows, ratios = results["rows"], results["ratios"]
    lines = [_row("first run", "seconds", "range", "of torch", "goal", ""), "|---|" + "---:|" * 4 + "---|"]
    for name, title in _FIRST_TITLES.items():
        if (row := rows.get(name)) is None:
            continue
        share, goal = ratios.get(f"{name}/torch", 1.0), results["goals"].get(f"{name}/torch")
        verdict = "" if goal is None else "met" if share <= goal else "**missed**"
        span = f"{row['seconds_min']:.1f} to {row['seconds_max']:.1f}"
        lines.append(
            _row(title, f"{row['seconds']:.1f}", span, f"{share:.2f}", "" if goal is None else f"≤ {goal:g}", verdict)
        )
    return "\n".join([*lines, "", f"Medians. {_machine(results)} `{results['command']}`"])


_HELP_TITLES = {
    "torch_cold": "torch, empty caches",
    "torch_local_warm": "torch, its own local cache warm",
    "daemon_cold": "daemon, first process",
    "daemon_warm_empty": "daemon, every later process, empty caches",
    "eager": "nothing compiled",
}


def _help(results: Results) -> str:
    rows = results["rows"]
    baseline = rows["torch_cold"]["seconds"]
    lines = [_row("start", "seconds", "of a cold torch", "C++ builds"), "|---|" + "---:|" * 3]
    for name, title in _HELP_TITLES.items():
        row = rows[name]
        share = f"{row['seconds'] / baseline:.2f}"
        lines.append(_row(title, f"{row['seconds']:.1f}", share, f"{row['cpp_builds']:.0f}"))
    return "\n".join([*lines, "", f"Medians. {_machine(results)}"])


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


_WARM_TITLES = {
    "eager": "eager",
    "traced": "traced only",
    "torch_local_warm": "torch, its local cache",
    "torch_portable_empty": "torch, its portable cache",
    "torch_precompile_local": "torch's precompile, local",
    "torch_precompile_portable": "torch's precompile, portable",
    "daemon_warm_empty": "daemon",
    "daemon_skip_empty": "daemon, no trace",
    "eager_x8": "eager, 8 at once",
    "daemon_skip_x8": "daemon, no trace, 8 at once",
}
_WARM_GOALS = ("eager", "torch_local_warm", "torch_portable_empty")


def _warm(results: Results) -> str:
    rows, failures = results["rows"], results["failures"]
    lines = [_row("model", "frames traced", *_WARM_TITLES.values()), "|---|" + "---:|" * (1 + len(_WARM_TITLES))]
    for model in results["models"]:
        cells = []
        for name in _WARM_TITLES:
            row, failed = rows.get(f"{name}@{model}"), f"{name}@{model}" in failures
            seconds = "" if row is None else f"{row['seconds']:.2f}"
            cells.append(f"{seconds} (\\*)".strip() if failed else seconds)
        skipped = rows.get(f"daemon_skip_empty@{model}", {})
        lines.append(_row(model, f"{skipped['frames_traced']:.0f}" if skipped else "", *cells))
    lines += ["", _row("model", "ratio of medians", "goal", "measured", ""), "|---|---|---:|---:|---|"]
    for model in results["models"]:
        pairs = [("daemon_skip_empty", below) for below in _WARM_GOALS] + [("daemon_skip_x8", "eager_x8")]
        for above, below in pairs:
            name = f"{above}@{model}/{below}@{model}"
            if (measured := results["ratios"].get(name)) is None:
                continue
            goal = results["goals"].get(name)
            verdict = "" if goal is None else "reached" if measured <= goal else "**missed**"
            words = f"{_WARM_TITLES[above]} / {_WARM_TITLES[below]}"
            lines.append(_row(model, words, "" if goal is None else f"≤ {goal:g}", f"{measured:.3f}", verdict))
    lines += ["", f"Seconds, medians of {_rounds(rows)} rounds. {_machine(results)}"]
    for name, how in sorted(failures.items()):
        row, _, model = name.partition("@")
        lines += ["", f"(\\*) {model}, {_WARM_TITLES[row]}: {how.replace('<', '&lt;')}"]
    return "\n".join(lines)


def _rounds(rows: Results) -> str:
    found = sorted({row["rounds"] for row in rows.values()})
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


_PART_TITLES = {
    "collector": "the collector held back",
    "digests": "digests remembered",
    "traces": "traces skipped",
    "imports": "imports last",
}


def _parts(results: Results) -> str:
    rows = results["rows"]
    head = [f"without {title}" for title in _PART_TITLES.values()]
    lines = [_row("model", "with all", *head), "|---|" + "---:|" * (1 + len(head))]
    for model in results["models"]:
        if (whole := rows.get(f"daemon_skip_empty@{model}")) is None:
            continue
        cells = []
        for part in _PART_TITLES:
            less = rows.get(f"daemon_without_{part}@{model}")
            cells.append("" if less is None else _more(whole, less))
        if any(cells):
            lines.append(_row(model, f"{whole['seconds']:.2f} ({whole['cpu_s']:.2f})", *cells))
    return "\n".join(
        [*lines, "", "Seconds, and seconds of processor; what each part saves, likewise, in the same run."]
    )


def _more(whole: Results, less: Results) -> str:
    return f"{less['seconds'] - whole['seconds']:+.2f} ({less['cpu_s'] - whole['cpu_s']:+.2f})"


_ACTIVATION_WAYS = {"torch_precompile": "torch's precompile", "daemon_skip": "daemon, traces skipped"}


def _activations(results: Results) -> str:
    lines = [
        _row("the activation is", "second process with", "computed", "frames traced", "said"),
        "|---|---|---|---:|---|",
    ]
    for row in results["rows"]:
        where = "a global of the module" if row["where"] == "module" else "an attribute of the object"
        said = f"`{row['said']}`" if row["said"] else "nothing"
        computed = row["computed"] if row["computed"] == "eager's" else f"**{row['computed']}**"
        lines.append(_row(where, _ACTIVATION_WAYS[row["way"]], computed, row.get("frames_traced", ""), said))
    return "\n".join([*lines, "", _machine(results)])


_STARTS = {
    "torch_cold": "a cold torch",
    "torch_local_warm": "torch with its local cache warm",
    "torch_portable_empty": "torch's portable cache in empty directories",
    "daemon_cold": "an empty daemon",
    "daemon_warm_empty": "a warm daemon and empty directories",
}
_GOALS = {
    r"daemon@(\d+)/torch@\d+": r"\1 trainers at once: time with the daemon, as a part of torch's",
    r"daemon@(\d+)/torch@\d+:cpu_s": r"\1 trainers at once: processor time with the daemon, as a part of torch's",
    r"daemon@(\w+),1/redis@\w+,1:p50_ms": r"looking up \1, one caller: median, in medians of redis' GET",
    r"daemon@(\w+),1:p50_ms": r"looking up \1, one caller: median, ms",
    r"absent_adds:process_ms": "what the client adds to a process where no daemon is, ms",
    r"daemon_idle:rss_mib": "memory of an idle daemon, MiB",
    r"local_skip/local_on:step_ms": "a steady step with the trace put back, in steps of a traced function",
    r"daemon_async/eager:first_step_s/new_step_s": "`async`: first step at a new resolution, in eager steps",
}
_RATIO = re.compile(r"(\w+)(?:@(\w+@?\w*))?/(\w+)(?:@\w+@?\w*)?")


def _spelled(what: str) -> str:
    """Return what a goal is about, in words."""
    for pattern, words in _GOALS.items():
        if match := re.fullmatch(pattern, what):
            return match.expand(words)
    match = _RATIO.fullmatch(what)
    if match is None or match[1] not in _STARTS or match[3] not in _STARTS:
        raise StaleError(f"no words are known for the goal {what!r}")
    model = f"the model {match[2]}" if match[2] else "the demo's trainer"
    return f"{model}: start with {_STARTS[match[1]]}, as a part of the start with {_STARTS[match[3]]}"


def _goals(results: Results) -> str:
    lines = [_row("bench", "what", "goal", "measured", ""), "|---|---|---:|---:|---|"]
    for goal in results["goals"]:
        verdict = "met" if goal["measured"] <= goal["goal"] else "**missed**"
        lines.append(
            _row(goal["bench"], _spelled(goal["what"]), f"≤ {goal['goal']:g}", f"{goal['measured']:.3g}", verdict)
        )
    return "\n".join([*lines, "", _machine(results)])


def _row(*cells: object) -> str:
    return "| " + " | ".join("?" if cell is None else str(cell) for cell in cells) + " |"


def _machine(results: Results) -> str:
    """Return the sentence about the machine: text, or a map of facts."""
    machine = results.get("machine", "not recorded")
    text = ", ".join(f"{name} {value}" for name, value in machine.items()) if isinstance(machine, dict) else machine
    return f"Machine: {text}."


_PLACES = (
    Place(_README, "help-table", _SPEED / "startup.json", _help, "make bench"),
    Place(_PAGE, "demo-table", _ROOT / "benches" / "results" / "demo.json", _demo, "make demo"),
    Place(_PAGE, "startup-table", _SPEED / "startup.json", _startup, "make bench"),
    Place(_PAGE, "first-run-table", _FIRST / "first_run.json", _first_run, "python -m benches.first_run"),
    Place(_PAGE, "first-run-kept-table", _FIRST / "first_run_kept.json", _first_run, "python -m benches.first_run"),
    Place(_PAGE, "models-table", _SPEED / "models.json", _models, "python -m benches.speed --full --only models"),
    *(
        Place(_PAGE, f"{kind}-table-{torch}", _SPEED / f"{file}-{torch}.json", render, "python -m benches.startup")
        for torch in ("2.13.0", "2.15.0")
        for kind, file, render in (
            ("warm", "warm", _warm),
            ("parts", "warm", _parts),
            ("activations", "activations", _activations),
        )
    ),
    Place(_PAGE, "goals-table", _SPEED / "speed.json", _goals, "make bench"),
    Place(_PAGE, "zoo-table", _ROOT / "benches" / "results" / "zoo" / "zoo.json", _zoo, "make zoo"),
)


def _filled(text: str, place: Place) -> str:
    start, end = f"<!-- {place.name} -->\n", f"<!-- /{place.name} -->"
    before, opening, rest = text.partition(start)
    _, closing, after = rest.partition(end)
    if not opening or not closing:
        raise StaleError(f"{place.document.name} has no place between {start.strip()} and {end}")
    return f"{before}{start}{place.contents()}\n{end}{after}"


def main(argv: list[str] | None = None) -> int:
    """Fill or check the documents; return the exit code."""
    parser = argparse.ArgumentParser(description="Put the committed results of the benches into the documents.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where one is stale")
    options = parser.parse_args(argv)
    texts = {document: document.read_text() for document in (_README, _PAGE)}
    filled = dict(texts)
    try:
        for place in _PLACES:
            filled[place.document] = _filled(filled[place.document], place)
    except StaleError as error:
        sys.stderr.write(f"benchmark_tables: {error}\n")
        return 1
    stale = [document for document in texts if filled[document] != texts[document]]
    if stale and options.check:
        names = " and ".join(str(document.relative_to(_ROOT)) for document in stale)
        sys.stderr.write(f"{names} stale: run python tools/benchmark_tables.py and commit.\n")
        return 1
    for document in stale:
        document.write_text(filled[document])
    return 0


if __name__ == "__main__":
    sys.exit(main())
