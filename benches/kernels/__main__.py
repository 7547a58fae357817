"""Where a process gets its Triton kernels from, measured: compiled here, Triton's own files, the daemon.

    python -m benches.kernels

Every kernel of the corpus for every target, each row in a fresh process: without a daemon and with empty caches; the
same with Triton's files of before; with an empty daemon; with the daemon again and empty caches; with the daemon gone;
four at once on another empty daemon. No device is needed: Triton compiles for targets that are not there.

Seconds are those from the first compile to the last, with the client's first connection; `process_s` has the start of
the process and `import torch`, too. Ends with a table and, last line on stdout, one JSON document. Exit code 1 where
the promise does not hold: a process that failed, binaries that differ, a warm process that compiled anything, or a
kernel that was compiled twice.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benches.served import ServedDaemon, ServeError, clean_environment

TARGETS = ("cuda:80", "cuda:90", "hip:gfx942")
AT_ONCE = 4
_RUN_S = 600.0
_COLUMNS = ("seconds", "process_s", "kernels", "compiles", "hits", "by_daemon", "from_store")


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process of the bench under way."""

    running: subprocess.Popen[bytes]
    report: Path
    started: float


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benches.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", default=",".join(TARGETS), help="as backend:architecture, separated by commas")
    parser.add_argument("--out", type=Path, help="also write the JSON document to this file")
    options = parser.parse_args(argv)
    talk = Console(stderr=True)
    try:
        import triton
    except ImportError:
        talk.print("There is no triton here: pip install triton")
        return 1
    targets = options.targets.split(",")
    with tempfile.TemporaryDirectory(prefix="cd-kernels-") as text:
        try:
            rows = _measure(Path(text), targets, talk)
        except ServeError as error:
            talk.print(f"[red]{error}[/red]", soft_wrap=True)
            return 1
    complaints = _complaints(rows)
    for complaint in complaints:
        talk.print(f"[red]{complaint}[/red]", soft_wrap=True)
    seconds = {row["name"]: row["seconds"] for row in rows}
    document = {
        "rows": [{name: value for name, value in row.items() if name != "digests"} for row in rows],
        "ratios": {
            f"{name}/cold_local": round(seconds[name] / seconds["cold_local"], 4)
            for name in seconds
            if name != "cold_local"
        },
        "targets": targets,
        "binaries_equal": all(row["digests"] == rows[0]["digests"] for row in rows),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, triton {triton.__version__}",
    }
    Console(width=110).print(_table(rows))
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document), flush=True)
    return 1 if complaints else 0


def _measure(folder: Path, targets: list[str], talk: Console) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def row(name: str, processes: list[Process], daemon: ServedDaemon | None = None) -> None:
        found = [_finished(process) for process in processes]
        slowest = max(found, key=lambda one: one["process_s"])
        # Of several processes the sums are counted, and the slowest is timed.
        sums = {what: sum(one[what] for one in found) for what in ("compiles", "hits", "by_daemon", "from_store")}
        same = all(one["digests"] == found[0]["digests"] for one in found)
        compiled = daemon.status().counters["compiles_started"] if daemon else 0
        rows.append({"name": name, **slowest, **sums, "same_in_all": same, "daemon_compiles": compiled})
        talk.print(f"{name}: {slowest['seconds']:.2f} s")

    row("cold_local", [_start(folder, "cold", targets)])
    row("triton_warm", [_start(folder, "cold", targets)])
    daemon = ServedDaemon(folder / "first")
    daemon.start()
    try:
        row("daemon_cold", [_start(folder, "served", targets, daemon)], daemon)
        row("daemon_warm_empty", [_start(folder, "again", targets, daemon)], daemon)
    finally:
        daemon.stop()
    row("daemon_absent", [_start(folder, "absent", targets, daemon)])
    other = ServedDaemon(folder / "second")
    other.start()
    try:
        row("four_at_once", [_start(folder, f"four-{n}", targets, other) for n in range(AT_ONCE)], other)
    finally:
        other.stop()
    return rows


def _start(folder: Path, home: str, targets: list[str], daemon: ServedDaemon | None = None) -> Process:
    place = folder / home
    (place / "triton").mkdir(parents=True, exist_ok=True)
    report = place / "report.json"
    environment = clean_environment() | {"TRITON_CACHE_DIR": str(place / "triton"), "TMPDIR": str(place)}
    if daemon is not None:
        environment |= {
            "TORCH_COMPILE_CLIENT": "1",
            "TORCH_COMPILE_CLIENT_REPORT": str(report),
            "COMPILER_DAEMON_DIR": str(daemon.directory),
        }
    command = [sys.executable, "-m", "benches.kernels.process", *targets]
    running = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    return Process(running=running, report=report, started=time.monotonic())


def _finished(process: Process) -> dict[str, Any]:
    out, _ = process.running.communicate(timeout=_RUN_S)
    seconds = time.monotonic() - process.started
    lines = out.decode().splitlines()
    said: dict[str, Any] = json.loads(lines[-1]) if lines and process.running.returncode == 0 else {}
    client: dict[str, Any] = json.loads(process.report.read_text()) if process.report.exists() else {}
    return {
        "seconds": said.get("seconds", 0.0),
        "process_s": round(seconds, 3),
        "kernels": said.get("kernels", 0),
        "compiles": said.get("compiles", 0),
        "hits": said.get("hits", 0),
        "by_daemon": client.get("kernels_by_daemon", 0),
        "from_store": client.get("kernel_hits", 0),
        "exit_code": process.running.returncode,
        "digests": said.get("digests", {}),
    }


def _complaints(rows: list[dict[str, Any]]) -> list[str]:
    """What does not hold of what the bench is there to show."""
    named = {row["name"]: row for row in rows}
    found = [f"{row['name']} ended with exit code {row['exit_code']}" for row in rows if row["exit_code"]]
    first = rows[0]["digests"]
    found += [f"binaries of {row['name']} differ" for row in rows if not row["same_in_all"] or row["digests"] != first]
    warm = named["daemon_warm_empty"]
    if warm["compiles"] or warm["hits"] != warm["kernels"]:
        found.append("the warm process compiled a kernel")
    for name in ("daemon_cold", "four_at_once"):
        row = named[name]
        if row["compiles"] or row["daemon_compiles"] != row["kernels"]:
            found.append(f"{name}: {row['daemon_compiles']} compiles by the daemon and {row['compiles']} elsewhere")
    return found


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="the corpus, in a process that has", title_justify="left")
    table.add_column("row")
    for column in _COLUMNS:
        table.add_column(column.replace("_", " "), justify="right")
    table.add_column("ratio", justify="right")
    for row in rows:
        cells = [
            f"{row[column]:.2f}" if column in {"seconds", "process_s"} else str(row[column]) for column in _COLUMNS
        ]
        table.add_row(row["name"], *cells, f"{row['seconds'] / rows[0]['seconds']:.3f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
