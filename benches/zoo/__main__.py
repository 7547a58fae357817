"""How much of what dynamo emits the daemon can take: the zoo, compiled by a real daemon.

    python -m benches.zoo [--only NAME ...] [--out FOLDER]

Starts a daemon on a temporary directory, then compiles every entry of `benches.zoo.models` for each value of `dynamic`
in one trainer process with the client on, and compares outputs and gradients with eager. Ends with a table by outcome,
the refusals with their reasons, and, last line on stdout, one JSON document. Exit code 1 where a result differs from
eager or fewer than 95 % of the graphs were compiled by the daemon.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benches.harness.daemon import ServedDaemon
from benches.harness.machine import machine_name
from benches.harness.output import folder, last_line, say
from benches.harness.processes import run_bench, start_child

_AIM = 0.95
_COUNTED = ("graphs", "hits", "compiled_by_daemon", "compiled_here", "hits_local", "traced_again")
_CHILD = "--in-trainer"


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benches.zoo", description="Compile the zoo with a real daemon.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these entries only")
    parser.add_argument("--out", type=folder, help="write zoo.json and zoo.md here")
    parser.add_argument(_CHILD, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.in_trainer:
        _in_trainer(options.only)
        return 0
    results, seconds = _run(options.only)
    summary = _summary(results, seconds)
    console = Console(width=110)
    console.print(_table(results))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "zoo.json").write_text(json.dumps(summary, indent=1) + "\n")
        (options.out / "zoo.md").write_text(_markdown(summary, results))
    last_line(summary)
    return 0 if summary["all_equal"] and summary["compiled_share"] >= _AIM else 1


def _run(only: list[str]) -> tuple[list[dict[str, Any]], float]:
    results = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="compiler-daemon-zoo-") as text:
        folder = Path(text)
        daemon = ServedDaemon(folder)
        daemon.start()
        try:
            for name in ("inductor", "tmp"):
                (folder / name).mkdir()
            trainer = start_child(
                [sys.executable, "-m", "benches.zoo", _CHILD, *(["--only", *only] if only else [])],
                stdout=subprocess.PIPE,
                env=os.environ
                | {
                    "TORCH_COMPILE_CLIENT": "1",
                    "COMPILER_DAEMON_DIR": str(daemon.directory),
                    "COMPILER_DAEMON_ADDRESS": daemon.address,
                    "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
                    "TMPDIR": str(folder / "tmp"),
                },
            )
            assert trainer.stdout is not None
            for line in trainer.stdout:
                if line.startswith(b"{"):
                    results.append(json.loads(line))
                    last = results[-1]
                    say(f"{last['name']} dynamic={last['dynamic']}: {_outcome(last)} {last['seconds']:.1f} s")
            if trainer.wait() != 0:
                raise SystemExit(f"the trainer ended with exit code {trainer.returncode}")
        finally:
            daemon.stop()
    return results, time.monotonic() - start


def _in_trainer(only: list[str]) -> None:
    """Print one JSON line for each entry and value of `dynamic`, in a process with the client on."""
    import torch

    import compile_client
    from benches.zoo.models import ZOO
    from benches.zoo.results import close, results_of

    compile_client.install()
    for entry in ZOO:
        for dynamic in entry.dynamic:
            if only and entry.name not in only:
                continue
            torch._dynamo.reset()
            start = time.monotonic()
            before = compile_client.counters()
            expected = results_of(entry, None, eager=True)
            found = results_of(entry, dynamic)
            after = compile_client.counters()
            row: dict[str, Any] = {"name": entry.name, "dynamic": str(dynamic), "seconds": time.monotonic() - start}
            for counter in _COUNTED:
                row[counter] = after[counter] - before[counter]
            for group in ("refused", "fallbacks"):
                row[group] = {
                    k: n - before[group].get(k, 0) for k, n in after[group].items() if n > before[group].get(k, 0)
                }
            row["equal"] = "random" in entry.name or "dropout" in entry.name or close(expected, found)
            print(json.dumps(row), flush=True)


def _outcome(row: dict[str, Any]) -> str:
    parts = [
        f"{row[name]} {name.replace('_', ' ')}" for name in ("hits", "compiled_by_daemon", "compiled_here") if row[name]
    ]
    reasons = [f"{reason}" for group in ("refused", "fallbacks") for reason in row[group]]
    return ", ".join(parts) + (f" ({', '.join(reasons)})" if reasons else "") + ("" if row["equal"] else " NOT EQUAL")


def _summary(results: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    total = {name: sum(row[name] for row in results) for name in _COUNTED}
    refused: dict[str, int] = {}
    for row in results:
        for reason, count in row["refused"].items():
            refused[reason] = refused.get(reason, 0) + count
    served = total["compiled_by_daemon"] + total["hits"]
    compiled = served + total["compiled_here"]
    import torch

    return {
        "entries": len({row["name"] for row in results}),
        "cases": len(results),
        **total,
        "refused": refused,
        "compiled_share": round(served / compiled, 4) if compiled else 0.0,
        "all_equal": all(row["equal"] for row in results),
        "seconds": round(seconds, 1),
        "torch": str(torch.__version__),
        "machine": machine_name(),
        "rows": results,
    }


def _table(results: list[dict[str, Any]]) -> Table:
    table = Table(title="the zoo: what was not compiled by the daemon", title_justify="left")
    for column in ("entry", "dynamic", "outcome"):
        table.add_column(column)
    for row in results:
        if row["compiled_here"] or not row["equal"]:
            table.add_row(row["name"], row["dynamic"], _outcome(row))
    return table


def _markdown(summary: dict[str, Any], results: list[dict[str, Any]]) -> str:
    lines = [
        "# The zoo",
        "",
        f"`python -m benches.zoo --out benches/results/zoo`, torch {summary['torch']}, {summary['machine']}.",
        "",
        f"{summary['entries']} entries, {summary['cases']} cases, {summary['graphs']} graphs: "
        f"{summary['compiled_by_daemon']} compiled by the daemon, {summary['hits']} served from its store, "
        f"{summary['hits_local']} found in torch's own cache (the graph of another value of `dynamic`), "
        f"{summary['compiled_here']} compiled by torch in the trainer, {summary['traced_again']} given up by "
        f"torch itself, which then began anew. Of those that were compiled {summary['compiled_share']:.1%} were "
        f"compiled by the daemon. Outputs and gradients equal to eager (graphs with random numbers left out): "
        f"{'all' if summary['all_equal'] else 'NOT all'}.",
        "",
        "| entry | dynamic | graphs | outcome |",
        "|---|---|---|---|",
    ]
    lines += [f"| {row['name']} | {row['dynamic']} | {row['graphs']} | {_outcome(row)} |" for row in results]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_bench(main)
