"""`python -m tests.faults.matrix` plays every fault at every step, each against a real daemon with a real compile.

It prints the table, and as the last line of standard output {"cells": n, "passed": n}. `--write` puts the results into
`docs/trust/matrix.md` and `.json`; cells that were not played keep their former results there, so that a run of some
cells renews only those. The exit code is 1 if a cell failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benches.harness.processes import run_bench
from tests.e2e.conftest import REPOSITORY
from tests.faults.cell import FAULTS, STEPS, Cell
from tests.faults.cells import CELLS
from tests.faults.forked import ForkServer
from tests.faults.kit import HAS_TRITON, Kit
from tests.faults.playing import NOISE, NOISE_S, Result, play

DOCUMENT = REPOSITORY / "docs" / "trust" / "matrix.md"
_COMMAND = "python -m tests.faults.matrix"


def main(arguments: list[str] | None = None) -> int:
    """Play what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__)
    parser.add_argument("--fault", action="append", choices=FAULTS, help="a row; may be repeated")
    parser.add_argument("--step", action="append", choices=STEPS, help="a column; may be repeated")
    parser.add_argument("--cell", action="append", metavar="FAULT:STEP", help="a cell, as kill--9:lookup")
    parser.add_argument(
        "--failed", action="store_true", help="the cells that have not passed in docs/trust/matrix.json"
    )
    parser.add_argument("--at-once", type=int, default=2, help="cells at a time [2]")
    parser.add_argument(
        "--forked", action="store_true", help="trainers are forks of one that has imported torch: half the time"
    )
    parser.add_argument(
        "--kit", type=Path, help="keep the preparation here, or use what was kept: while working on cells"
    )
    parser.add_argument("--write", action="store_true", help="write docs/trust/matrix.md and matrix.json")
    parser.add_argument("--list", action="store_true", help="only name the cells")
    options = parser.parse_args(arguments)
    talk = Console(stderr=True)
    former = _former() if options.write or options.failed else {}
    chosen = _chosen(options, former)
    if options.list:
        for cell in chosen:
            print(cell.name)
        return 0
    merged = dict(former)

    commit = _commit()

    def note(result: Result) -> None:
        result.commit = commit
        merged[result.fault, result.step] = result
        if options.write:
            _write([merged[place] for place in CELLS if place in merged])

    results = _played(chosen, at_once=options.at_once, kept=options.kit, forked=options.forked, talk=talk, note=note)
    Console(width=None if sys.stdout.isatty() else 170).print(_table(results))
    passed = sum(result.passed for result in results)
    print(json.dumps({"cells": len(results), "passed": passed}))
    return 0 if passed == len(results) else 1


def _chosen(options: argparse.Namespace, former: dict[tuple[str, str], Result]) -> list[Cell]:
    names = {cell.name for cell in CELLS.values()}
    if unknown := set(options.cell or ()) - names:
        raise SystemExit(f"no such cell: {', '.join(sorted(unknown))}; --list names all")
    chosen = []
    if not HAS_TRITON:
        Console(stderr=True).print("There is no triton here: cells with kernels are not played.")
    for place, cell in CELLS.items():
        wanted = cell.name in options.cell if options.cell else True
        wanted &= cell.fault in options.fault if options.fault else True
        wanted &= cell.step in options.step if options.step else True
        if options.failed:
            wanted &= place not in former or not former[place].passed
        if wanted and (HAS_TRITON or not cell.of_kernels):
            chosen.append(cell)
    return chosen


def _prepared(folder: Path, kept: Path | None, talk: Console) -> Kit:
    if kept and (kept / "kit.json").exists():
        return Kit.load(kept)
    talk.print("without a daemon, and with a new one ...")
    kit = Kit.prepare(kept or folder / "kit", with_seconds=True)
    if kept:
        kit.save()
    return kit


def _played(
    cells: list[Cell],
    *,
    at_once: int,
    kept: Path | None,
    forked: bool,
    talk: Console,
    note: Callable[[Result], None],
) -> list[Result]:
    # The folder is in /tmp whatever TMPDIR says, because a Unix socket's path has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
    lock, results = threading.Lock(), []
    kit: Kit | None = None
    try:
        kit = _prepared(folder, kept, talk)
        if forked:
            (folder / "forks").mkdir()
            kit.forks = ForkServer(kit.temporary, folder / "forks")
        with ThreadPoolExecutor(at_once) as pool:
            started = [pool.submit(play, cell, kit, folder / str(n)) for n, cell in enumerate(cells)]
            for done in as_completed(started):
                result = done.result()
                with lock:
                    results.append(result)
                    note(result)
                verdict = f"[green]{result.counter}" if result.passed else "[red]failed"
                talk.print(
                    f"{len(results):3}/{len(cells)}  {result.fault} x {result.step}: {verdict}[/] "
                    f"({result.seconds:.0f} s, waited {result.waited_s:.1f} s)"
                )
                if not result.passed:
                    talk.print(result.failure, markup=False, highlight=False)
    finally:
        if kit and kit.forks:
            kit.forks.close()
        shutil.rmtree(folder, ignore_errors=True)
    order = list(CELLS)
    return sorted(results, key=lambda result: order.index((result.fault, result.step)))


def _table(results: Iterable[Result]) -> Table:
    table = Table(title="faults x steps", show_lines=True)
    table.add_column("fault")
    found = {(result.fault, result.step): result for result in results}
    steps = [step for step in STEPS if any(place[1] == step for place in found)]
    for step in steps:
        table.add_column(step, overflow="fold")
    for fault in FAULTS:
        if any(place[0] == fault for place in found):
            table.add_row(fault, *(_short(found.get((fault, step))) for step in steps))
    return table


def _short(result: Result | None) -> str:
    if result is None:
        return ""
    return f"[green]{_counter(result)}" if result.passed else "[red]FAILED"


def _counter(result: Result) -> str:
    return result.counter.replace("client: ", "").replace("daemon: ", "")


def _former() -> dict[tuple[str, str], Result]:
    path = DOCUMENT.with_suffix(".json")
    if not path.exists():
        return {}
    found = [Result(**row) for row in json.loads(path.read_text())["results"]]
    return {(result.fault, result.step): result for result in found if (result.fault, result.step) in CELLS}


def _write(results: list[Result]) -> None:
    DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
    from importlib.metadata import version

    document: dict[str, Any] = {
        "command": f"{_COMMAND} --forked --write",
        "python": platform.python_version(),
        "torch": version("torch"),
        "cells": len(results),
        "passed": sum(result.passed for result in results),
        "results": [dataclasses.asdict(result) for result in results],
    }
    DOCUMENT.with_suffix(".json").write_text(json.dumps(document, indent=1) + "\n")
    DOCUMENT.write_text(_markdown(document, results))


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def _markdown(document: dict[str, Any], results: list[Result]) -> str:
    found = {(result.fault, result.step): result for result in results}
    lines = [
        "# The fault matrix",
        "",
        f"Written by `make matrix` (`{document['command']}`); do not edit. {_provenance(results)}, "
        f"torch {document['torch']}, Python {document['python']}: **{document['passed']} of {document['cells']} cells "
        "passed**. Each cell's raw numbers, and when it ran, are in [matrix.json](matrix.json).",
        "",
        "Each cell is a real daemon, a real trainer with empty caches, and a graph that is compiled forward and",
        "backward, or a Triton kernel (for sm_90 and launched nowhere: no GPU is needed).",
        "Trainers are forks of a process that has imported torch and compiled nothing; where a clock",
        "jumps or the daemon's memory ends they are started anew. A cell passes if",
        "",
        "- the trainer's exit code is 0, and losses and gradients, or the kernel's binary and all its other files, are",
        "  those of a run without a daemon, bit by bit;",
        "- by its own account it waited for the daemon no longer than `TORCH_COMPILE_CLIENT_TIMEOUT` for each graph:",
        "  5 s where the fault makes it wait in vain, 240 s where the daemon compiles (a silent stream is given up",
        "  after 10 s), and 5 s for what a busy machine does between two waits;",
        "- from start to end it took no longer than without a daemon, plus that, plus 10 s for publishing at the end,",
        f"  plus {NOISE:g} times its time without a daemon and {NOISE_S:g} s for what else the machine does;",
        "- the counter below went up: of the trainer's report (`hits`, `fallbacks`, `refused`, `unpublished`) or of",
        "  the daemon's status;",
        "- afterwards the daemon answers a handshake and finds what was stored, after a restart if it was killed; it",
        "  ends with exit code 0, and no process of the cell is left.",
        "",
        "| | " + " | ".join(STEPS) + " |",
        "|---|" + "---|" * len(STEPS),
    ]
    for fault in FAULTS:
        cells = [_markdown_cell(found.get((fault, step))) for step in STEPS]
        lines.append(f"| **{fault}** | " + " | ".join(cells) + " |")
    steps = (sys.modules[Cell.__module__].__doc__ or "").split("clock:\n\n")[1].strip()
    lines += ["", "## The steps", "", "```", steps, "```", "", "## What each fault means at each step", ""]
    for fault in FAULTS:
        lines += [
            f"### {fault}",
            "",
            "| step | what is done, and what comes of it | counter | waited, s | trainer, s (alone) | daemon |",
            "|---|---|---|---:|---:|---|",
        ]
        for step in STEPS:
            result = found.get((fault, step))
            what = result.what if result else CELLS[fault, step].what
            row = (
                f"`{_counter(result)}` | {result.waited_s:.1f} | {result.seconds:.1f} ({result.alone_s:.1f}) "
                f"| {result.daemon}"
                if result and result.passed
                else f"{'**failed**' if result else 'not run'} | | | "
            )
            lines.append(f"| {step} | {what} | {row} |")
        lines.append("")
    return "\n".join(lines)


def _provenance(results: list[Result]) -> str:
    commits = {result.commit for result in results}
    first, last = min(result.ran_at for result in results), max(result.ran_at for result in results)
    if len(commits) == 1 and "" not in commits:
        return f"All cells ran on commit {commits.pop()}, from {first} to {last}"
    return (
        f"The cells did not all run on one commit, but from {first} to {last} while the code was worked on: "
        "matrix.json has the time and, where it is known, the commit of each"
    )


def _markdown_cell(result: Result | None) -> str:
    if result is None:
        return "not run"
    return f"`{_counter(result)}`" if result.passed else "**failed**"


if __name__ == "__main__":
    run_bench(main)
