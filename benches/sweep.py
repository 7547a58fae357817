"""K trainers started together, everything cold: torch with one shared cache directory against the daemon.

    python -m benches.sweep
    python -m benches.sweep --trainers 1,2,4,8 --out benches/results/sweep.json

All trainers are the same program, as the ranks of a job or the seeds of a sweep are. With torch they share one cache
directory, where file locks keep them from building one kernel twice; with the daemon each has empty folders of its own.
Rows are `torch@K` and `daemon@K`: wall seconds from the first start to the last end, processor seconds of everything
(trainers, daemon, workers), and what was compiled; and `traced@K`, trainers that import torch's compiler and trace, and
run dynamo's graphs eagerly: what is left of it where compiles cost nothing at all.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import psutil

from benches.harness.daemon import ServedDaemon, ServeError
from benches.harness.measure import BenchError, CacheDirs, Ratio, Row, RunningTrainer, arguments, finish
from benches.harness.output import complain, say
from benches.harness.processes import run_bench

GOALS = {("seconds", 4): 0.65, ("seconds", 8): 0.40, ("cpu_s", 4): 0.50, ("cpu_s", 8): 0.35}


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    parser = arguments("sweep", __doc__, ("torch", "daemon", "traced"), rounds=1)
    parser.add_argument("--trainers", default="1,2,4,8", help="how many at once, by commas (default 1,2,4,8)")
    parser.add_argument("--depth", type=int, default=2, help="layers of the model (default 2)")
    parser.add_argument("--resolutions", default="16,32,64", help="of the images, by commas (default 16,32,64)")
    options = parser.parse_args(argv)
    counts = [int(text) for text in options.trainers.split(",")]
    rows: dict[str, Row] = {}
    losses: set[str] = set()
    try:
        with tempfile.TemporaryDirectory(prefix="sweep-") as text:
            for number in range(options.rounds):
                for count in counts:
                    for name in options.rows:
                        folder = Path(text) / f"{name}-{count}-{number}"
                        folder.mkdir()
                        figures, found = _RUNS[name](
                            folder, count, ["--depth", str(options.depth), "--resolutions", options.resolutions]
                        )
                        losses |= found if name != "traced" else set()  # eager kernels round otherwise
                        rows.setdefault(f"{name}@{count}", Row()).add(figures)
                        say(f"{name}, {count} trainers: {figures['seconds']:.1f} s")
    except (BenchError, ServeError) as error:
        complain(error)
        return 1
    if len(losses) > 1:
        complain(f"the losses differ: {losses}")
        return 1
    ratios = [
        Ratio(f"{name}@{count}", f"torch@{count}", GOALS.get((figure, count)) if name == "daemon" else None, figure)
        for name in ("daemon", "traced")
        for figure in ("seconds", "cpu_s")
        for count in counts
    ]
    finish("sweep", rows, ratios, options.out, depth=options.depth, resolutions=options.resolutions)
    return 0


def _torch(folder: Path, count: int, model: list[str]) -> tuple[dict[str, float], set[str]]:
    shared = CacheDirs.fresh(folder / "shared")
    return _together([shared] * count, model, [{}] * count)


def _daemon(folder: Path, count: int, model: list[str]) -> tuple[dict[str, float], set[str]]:
    daemon = ServedDaemon(folder / "served")
    daemon.start()
    try:
        homes = [CacheDirs.fresh(folder / f"trainer-{number}") for number in range(count)]
        client = {"TORCH_COMPILE_CLIENT": "1", "COMPILER_DAEMON_DIR": str(daemon.directory)}
        reports = [{"TORCH_COMPILE_CLIENT_REPORT": str(home.path / "report.json")} for home in homes]
        figures, losses = _together(homes, model, [client | report for report in reports])
        figures["cpu_s"] += _tree_cpu_s(daemon.pid)
        counters = daemon.status().counters
        figures["compiles"] = float(counters.get("compiles_done", 0))
        if any(json.loads((home.path / "report.json").read_text())["fallbacks"] for home in homes):
            raise BenchError("a client counted failures with a daemon that is well")
    finally:
        daemon.stop()
    return figures, losses


def _traced(folder: Path, count: int, model: list[str]) -> tuple[dict[str, float], set[str]]:
    return _together([CacheDirs.fresh(folder / "shared")] * count, [*model, "--traced"], [{}] * count)


_RUNS = {"torch": _torch, "daemon": _daemon, "traced": _traced}


def _together(
    homes: list[CacheDirs], model: list[str], environments: list[dict[str, str]]
) -> tuple[dict[str, float], set[str]]:
    """Start one trainer for each home at once; return the figures of all, and the losses that occurred."""
    begun = time.monotonic()
    command = ["-m", "benches.startup.trainer", *model]
    started = [RunningTrainer(command, home, **more) for home, more in zip(homes, environments, strict=True)]
    ended = [one.end() for one in started]
    figures = {
        "seconds": time.monotonic() - begun,
        "cpu_s": sum(one.cpu_s for one in ended),
        "compiles": float(sum(one.result["graphs"] for one in ended)),
        "cpp_builds": float(sum(one.result["cpp_builds"] for one in ended)),
    }
    return figures, {json.dumps(one.result["losses"]) for one in ended}


def _tree_cpu_s(pid: int) -> float:
    """Return the processor seconds of the daemon, its workers, and all that these have waited for."""
    total = 0.0
    for process in (root := psutil.Process(pid), *root.children(recursive=True)):
        used = process.cpu_times()
        total += used.user + used.system + used.children_user + used.children_system
    return total


if __name__ == "__main__":
    run_bench(main)
