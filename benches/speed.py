"""Every speed bench one after the other, and every goal beside what was measured: `make bench`.

    python -m benches.speed                                    under a quarter of an hour, on two cores
    python -m benches.speed --full --out benches/results/speed  more rounds, all numbers of trainers: for keeps

Each bench runs in a process of its own and says what it does on stderr. The last line is one JSON document with the
rows and ratios of all of them. `--out` keeps it, with each bench's own document beside it; benches
that were not run keep their former document there.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benches.harness.machine import machine
from benches.harness.output import complain, folder, last_line, say
from benches.harness.processes import run_bench, start_child


@dataclass(frozen=True, slots=True)
class Part:
    """One bench, and what it is told."""

    name: str
    quick: tuple[str, ...] | None
    """None where the short form leaves it out."""
    full: tuple[str, ...]
    module: str = ""
    """Of `benches`, where the part has another name than it."""

    def command(self, *, full: bool) -> list[str] | None:
        """Return what Python is started with."""
        more = self.full if full else self.quick
        return None if more is None else ["-m", f"benches.{self.module or self.name}", *more]


_STARTS = (
    "eager,traced,torch_cold,torch_local_warm,torch_portable_empty,torch_redis_empty,"
    "daemon_cold,daemon_warm_empty,daemon_warm_local"
)
"""What both documents of starts have; precompile, skipped traces and eight at once have one of their own."""
PARTS = (
    Part("startup", ("--rows", _STARTS, "--rounds", "1"), ("--rows", _STARTS, "--rounds", "3")),
    # Eight trainers would take the short form over its quarter of an hour; with fewer resolutions it asks for less.
    Part("sweep", ("--trainers", "4"), ("--trainers", "1,2,4,8", "--rounds", "3")),
    Part("wire", ("--rounds", "3"), ("--rounds", "5")),
    Part("overhead", ("--rounds", "4"), ("--rounds", "9")),
    Part("stall", ("--rounds", "1"), ("--rounds", "2")),
    Part(
        "models",
        None,
        ("--rows", _STARTS, "--models", "multires@4,multires@8,gradients,backbones", "--rounds", "1"),
        module="startup",
    ),
)

Document = Mapping[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Run them; return 1 where one of them failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benches.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="the long form, for results that are kept")
    parser.add_argument("--only", help="which benches, by commas (default all)")
    parser.add_argument("--out", type=folder, help="folder for the JSON documents")
    options = parser.parse_args(argv)
    chosen = options.only.split(",") if options.only else [part.name for part in PARTS]
    if unknown := set(chosen) - {part.name for part in PARTS}:
        parser.error(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(part.name for part in PARTS)}")
    begun = time.monotonic()
    found: dict[str, Document] = {}
    failed: list[str] = []
    for part in PARTS:
        if part.name in chosen:
            command = part.command(full=options.full)
            if command is None:
                say(f"{part.name}: only with --full")
                continue
            document = _run(part.name, command)
            if document is None:
                failed.append(part.name)
            else:
                found[part.name] = document
    if options.out is not None:  # what was measured before and not now stays
        for part in PARTS:
            if part.name not in {*found, *failed} and (kept := options.out / f"{part.name}.json").exists():
                found[part.name] = json.loads(kept.read_text())
    combined = {
        "bench": "speed",
        "full": options.full,
        "machine": machine(),
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "failed": failed,
        "commands": {name: document["command"] for name, document in found.items()},
        "goals": [goal for name, document in found.items() for goal in goals(name, document)],
        "rows": {f"{name}.{row}": figures for name, one in found.items() for row, figures in one["rows"].items()},
        "ratios": {f"{name}.{ratio}": value for name, one in found.items() for ratio, value in one["ratios"].items()},
    }
    Console(width=120).print(_table(combined))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, document in found.items():
            (options.out / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
        (options.out / "speed.json").write_text(json.dumps(combined, indent=1) + "\n")
    last_line(combined)
    return 1 if failed else 0


def goals(name: str, document: Document) -> list[dict[str, Any]]:
    """Return each goal of a bench with what was measured."""
    found = [
        {"bench": name, "what": ratio, "goal": goal, "measured": document["ratios"].get(ratio)}
        for ratio, goal in document["goals"].items()
    ]
    for what, limit in document.get("limits", {}).items():
        row, _, figure = what.partition(":")
        found.append({"bench": name, "what": what, "goal": limit, "measured": document["rows"][row][figure]})
    return [goal for goal in found if goal["measured"] is not None]


def _run(name: str, command: list[str]) -> Document | None:
    say(f"python {' '.join(command)}")
    process = start_child([sys.executable, *command], stdout=subprocess.PIPE, death_signal=signal.SIGTERM)
    assert process.stdout is not None
    last = ""
    for line in map(bytes.decode, process.stdout):
        if last:
            print(last, end="", flush=True)  # the document, which is last, comes in ours
        last = line
    if process.wait():
        complain(f"{name} failed")
        return None
    document: Document = json.loads(last)
    return {**document, "command": f"python {' '.join(command)}"}


def _table(combined: Document) -> Table:
    table = Table(title=f"goals, {combined['minutes']} minutes", title_justify="left")
    for column in ("bench", "what", "goal", "measured", ""):
        table.add_column(column, justify="right" if column in ("goal", "measured") else "left")
    for goal in combined["goals"]:
        verdict = "met" if goal["measured"] <= goal["goal"] else "missed"
        table.add_row(goal["bench"], goal["what"], f"≤ {goal['goal']:g}", f"{goal['measured']:.3f}", verdict)
    for name in combined["failed"]:
        table.add_row(name, "the bench failed", "", "", "")
    return table


if __name__ == "__main__":
    run_bench(main)
