"""The main job, shown: one trainer run four times in fresh processes, with and without a compile daemon.

    python -m benches.demo

Each run has the same seed and starts with empty inductor and Triton cache directories (and an empty TMPDIR, where torch
keeps precompiled headers): without a daemon; with an empty daemon; the same again; and with the daemon stopped. What
is counted is counted twice: by the client, and by the bench itself, which wraps the compilers.

Ends with a table and, last line on stdout, one JSON document. Exit code 1 where the promise does not hold: a run that
failed, losses that are not bit for bit the same, or a warm run that compiled anything.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benches.harness.daemon import ServedDaemon, ServeError, clean_environment
from benches.harness.machine import machine_name
from benches.harness.measure import CacheDirs
from benches.harness.output import complain, last_line, say, write_document
from benches.harness.processes import run_bench, run_child

_RUN_S = 600.0
_COLUMNS = (
    "seconds",
    "steps",
    "graphs",
    "hits",
    "compiled_by_daemon",
    "compiled_here",
    "cpp_builds",
    "triton_compiles",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One of the four."""

    name: str
    title: str
    client: bool


RUNS = (
    Run(name="no_daemon", title="without a daemon", client=False),
    Run(name="daemon_cold", title="with an empty daemon", client=True),
    Run(name="daemon_warm", title="with the daemon, again", client=True),
    Run(name="daemon_absent", title="with the daemon stopped", client=True),
)


def main(argv: list[str] | None = None) -> int:
    """Show the demo; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benches.demo", description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of every run (default 0)")
    parser.add_argument("--preset", default="demo", help="preset of benches.multires (default demo)")
    parser.add_argument(
        "--out", type=Path, help="also write the JSON document, with the machine named, to this file; `-` is stdout"
    )
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="compiler-daemon-demo-") as text:
        folder = Path(text)
        try:
            results = _show(folder, options)
        except ServeError as error:
            complain(error)
            return 1
    equal = all(result["losses"] == results[0]["losses"] and result["losses"] for result in results)
    Console(width=110).print(_table(results))
    complaints = _complaints(results, equal=equal)
    for complaint in complaints:
        complain(complaint)
    document = {"runs": results, "losses_equal": equal}
    if options.out is not None:
        machine = f"{machine_name()}, torch {version('torch')}"
        write_document(options.out, document | {"machine": machine})
    last_line(document)
    return 1 if complaints else 0


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of this module's text."""


def _show(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    daemon: ServedDaemon | None = None
    results = []
    try:
        for number, run in enumerate(RUNS, start=1):
            if run.client and daemon is None:
                daemon = ServedDaemon(folder)
                daemon.start()
            if run.name == "daemon_absent" and daemon is not None and (code := daemon.stop()) != 0:
                raise ServeError(f"the daemon ended with exit code {code}")
            say(f"{number}/{len(RUNS)} {run.title}")
            results.append(_run(run, folder, options, daemon))
            say(f"    {results[-1]['seconds']:.1f} s")
    finally:
        if daemon is not None:
            daemon.stop()
    return results


def _run(run: Run, folder: Path, options: argparse.Namespace, daemon: ServedDaemon | None) -> dict[str, Any]:
    home = CacheDirs.fresh(folder / run.name)
    report = home.path / "report.json"
    environment = clean_environment() | home.environment
    if run.client and daemon is not None:
        environment |= {
            "TORCH_COMPILE_CLIENT": "1",
            "TORCH_COMPILE_CLIENT_REPORT": str(report),
            "COMPILER_DAEMON_DIR": str(daemon.directory),
            "COMPILER_DAEMON_ADDRESS": daemon.address,
        }
    command = [sys.executable, "-m", "benches.multires", "--preset", options.preset, "--seed", str(options.seed)]
    start = time.monotonic()
    done = run_child(
        [*command, "--out", str(home.path / "runs")], env=environment, stdout=subprocess.PIPE, timeout_s=_RUN_S
    )
    seconds = time.monotonic() - start
    lines = done.stdout.decode().splitlines()
    try:
        bench: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, ValueError):
        bench = {}
    client: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
    graphs = bench.get("graphs", 0)
    return {
        "name": run.name,
        "seconds": round(seconds, 3),
        "steps": bench.get("steps", 0),
        "losses": bench.get("losses", []),
        "graphs": graphs,
        "hits": client.get("hits", 0),
        "compiled_by_daemon": client.get("compiled_by_daemon", 0),
        "compiled_here": client.get("compiled_here", 0) if client else graphs,
        "cpp_builds": bench.get("cpp_builds"),
        "triton_compiles": bench.get("triton_compiles"),
        "exit_code": done.returncode,
    }


def _complaints(results: list[dict[str, Any]], *, equal: bool) -> list[str]:
    """Return what does not hold of all that the demo is to show."""
    found = [
        f"{result['name']} ended with exit code {result['exit_code']}" for result in results if result["exit_code"] != 0
    ]
    if not equal:
        found.append("the losses of the four runs are not the same")
    warm = next(result for result in results if result["name"] == "daemon_warm")
    if warm["hits"] != warm["graphs"] or warm["cpp_builds"] or warm["triton_compiles"]:
        found.append("the warm run compiled something, or not every graph was a hit")
    return found


def _table(results: list[dict[str, Any]]) -> Table:
    table = Table(title="one trainer, four times", title_justify="left")
    table.add_column("run")
    for column in _COLUMNS:
        table.add_column(column.replace("compiled_", "").replace("_compiles", "").replace("_", " "), justify="right")
    table.add_column("ratio", justify="right")
    for result in results:
        cells = [f"{result[column]:.1f}" if column == "seconds" else str(result[column]) for column in _COLUMNS]
        table.add_row(result["name"], *cells, f"{result['seconds'] / results[0]['seconds']:.2f}")
    return table


if __name__ == "__main__":
    run_bench(main)
