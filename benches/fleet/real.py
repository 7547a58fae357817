"""A real small fleet, counted: daemons with directories and signers of their own on one directory, and their trainers.

All trainers are the same program and start together, with empty folders. What the daemons count of the tier is what
the model is held against. It takes the machine for minutes: each daemon and each trainer has a torch of its own.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benches.harness.daemon import ServedDaemon, clean_environment
from benches.harness.machine import machine
from benches.harness.measure import BenchError, CacheDirs, RunningTrainer
from benches.harness.output import say

COUNTED = ("tier_hits", "tier_misses", "tier_waited", "tier_written", "tier_duplicates", "tier_adopted")
_TRAINER = ["-m", "benches.startup.trainer", "--depth", "1", "--resolutions", "16,32,64"]
_WORKERS = 1


def counted_run(folder: Path, *, nodes: int, trainers: int) -> dict[str, Any]:
    """Run the fleet; return what was counted. Raises `BenchError`, `ServeError`."""
    (folder / "tier").mkdir(parents=True)
    place = f"file://{folder / 'tier'}"
    daemons = [
        ServedDaemon(folder / f"n{number}", "--workers", str(_WORKERS), "--tier", place) for number in range(nodes)
    ]
    lines = [_keys(daemon, "signer", "init", f"n{number}-1").splitlines()[0] for number, daemon in enumerate(daemons)]
    for daemon in daemons:
        for line in lines:
            _keys(daemon, "trust", line)
    started: list[ServedDaemon] = []
    try:
        for daemon in daemons:
            daemon.start()
            started.append(daemon)
        say(f"{nodes} daemons are up; {trainers} trainers begin")
        running = []
        for number in range(trainers):
            home = CacheDirs.fresh(folder / f"trainer-{number}")
            client = {
                "TORCH_COMPILE_CLIENT": "1",
                "COMPILER_DAEMON_DIR": str(daemons[number % nodes].directory),
                "TORCH_COMPILE_CLIENT_REPORT": str(home.path / "report.json"),
            }
            running.append(RunningTrainer(_TRAINER, home, **client))
        results = [trainer.end().result for trainer in running]
        counters: Counter[str] = Counter()
        for daemon in daemons:
            counters.update(dict(daemon.status().counters))
    finally:
        for daemon in started:
            daemon.stop()
    return _document(results, counters, nodes=nodes, trainers=trainers)


def _document(results: list[dict[str, Any]], counters: Counter[str], *, nodes: int, trainers: int) -> dict[str, Any]:
    # What another node has compiled is among `compiles_done` as well; these two are what was compiled and offered.
    compiles = counters["tier_written"] + counters["tier_adopted"]
    if not compiles:
        raise BenchError("no daemon compiled anything")
    starts = [result["import_torch_s"] + result["import_compiler_s"] + result["model_s"] for result in results]
    graphs = round(statistics.median(result["graphs"] for result in results))
    return {
        "machine": machine(),
        "nodes": nodes,
        "trainers": trainers,
        "graphs": graphs,
        "workers": _WORKERS,
        "compile_s": counters["compile_seconds"] / compiles,
        "start_s": min(starts),
        "spread_s": max(starts) - min(starts),
        "between_graphs_s": statistics.median(result["trace_s"] + result["guards_s"] for result in results) / graphs,
        "counters": {name: counters[name] for name in COUNTED},
    }


def _keys(daemon: ServedDaemon, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", "keys", *arguments, "--dir", str(daemon.directory)],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"`keys {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout
