"""Where a process gets its Triton kernels from, measured: compiled here, Triton's own files, the daemon.

    python -m benches.kernels

Every kernel of the corpus for every target, each process fresh, row after row and round after round:

cold_local          without a daemon and with empty caches
triton_warm         the same, with Triton's files of before
daemon_cold         with a new daemon that has compiled nothing
daemon_warm_empty   with that daemon again, and empty caches
daemon_absent       with that daemon gone
four_at_once        four at once on another new daemon; the slowest of them

No device is needed: Triton compiles for targets that are not there. Seconds are those from the first compile to the
last, with the client's first connection; `process_s` has the start of the process and `import torch`, too. Ends with
tables and, last line on stdout, one JSON document. Exit code 1 where the promise does not hold: a process that failed,
binaries that differ, a warm process that compiled anything, or a kernel that was compiled twice.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benches.harness.daemon import ServedDaemon, ServeError
from benches.harness.measure import BenchError, CacheDirs, Ratio, Row, RunningTrainer, arguments, finish
from benches.harness.output import complain, say
from benches.harness.processes import run_bench

TARGETS = ("cuda:80", "cuda:90", "hip:gfx942")
ROWS = ("cold_local", "triton_warm", "daemon_cold", "daemon_warm_empty", "daemon_absent", "four_at_once")
AT_ONCE = 4
RATIOS = [
    Ratio("triton_warm", "cold_local"),
    Ratio("daemon_cold", "cold_local"),
    Ratio("daemon_warm_empty", "cold_local"),
    Ratio("daemon_warm_empty", "triton_warm"),
    Ratio("daemon_absent", "cold_local"),
    Ratio("four_at_once", "cold_local"),
]
_NEEDS = {"triton_warm": "cold_local", "daemon_warm_empty": "daemon_cold", "daemon_absent": "daemon_cold"}
"""Rows that go on with what another has left."""
_SUMS = ("compiles", "hits", "by_daemon", "from_store")


@dataclass(slots=True)
class Kernels:
    """The bench under way."""

    folder: Path
    targets: Sequence[str]
    rows: dict[str, Row]
    digests: dict[str, str] = field(default_factory=dict)
    """Of the binaries, as the first process made them."""
    complaints: list[str] = field(default_factory=list)

    def warm_up(self) -> None:
        """Run a process that is not measured: the first one reads Triton and torch from the disk."""
        RunningTrainer(["-m", "benches.kernels.process", self.targets[0]], self._fresh("warm-up")).end()

    def round(self) -> None:
        """Run each row once."""
        local = CacheDirs.fresh(self.folder / "local")
        self._row("cold_local", [self._start(local)])
        self._row("triton_warm", [self._start(local)])
        if {"daemon_cold", "daemon_warm_empty", "daemon_absent"} & self.rows.keys():
            daemon = self._daemon("first")
            try:
                self._row("daemon_cold", [self._start(self._fresh("served"), daemon)], daemon)
                self._row("daemon_warm_empty", [self._start(self._fresh("again"), daemon)], daemon)
            finally:
                daemon.stop()
            self._row("daemon_absent", [self._start(self._fresh("absent"), daemon)])
        if "four_at_once" in self.rows:
            daemon = self._daemon("second")
            try:
                homes = [self._fresh(f"four-{number}") for number in range(AT_ONCE)]
                self._row("four_at_once", [self._start(home, daemon) for home in homes], daemon)
            finally:
                daemon.stop()

    def _daemon(self, name: str) -> ServedDaemon:
        shutil.rmtree(self.folder / name, ignore_errors=True)
        daemon = ServedDaemon(self.folder / name)
        daemon.start()
        return daemon

    def _fresh(self, name: str) -> CacheDirs:
        return CacheDirs.fresh(self.folder / name)

    def _start(self, home: CacheDirs, daemon: ServedDaemon | None = None) -> tuple[RunningTrainer, Path]:
        report = home.path / "report.json"
        client = (
            {
                "TORCH_COMPILE_CLIENT": "1",
                "TORCH_COMPILE_CLIENT_REPORT": str(report),
                "COMPILER_DAEMON_DIR": str(daemon.directory),
            }
            if daemon is not None
            else {}
        )
        return RunningTrainer(["-m", "benches.kernels.process", *self.targets], home, **client), report

    def _row(self, name: str, started: list[tuple[RunningTrainer, Path]], daemon: ServedDaemon | None = None) -> None:
        """Wait for the processes of a row, and note what they came to; the slowest is timed, sums are counted."""
        found = [self._ended(name, *one) for one in started]
        slowest = max(found, key=lambda one: one["seconds"])
        figures = {**slowest, **{what: sum(one[what] for one in found) for what in _SUMS}}
        figures["daemon_compiles"] = daemon.status().counters["compiles_started"] if daemon else 0
        self._check(name, figures)
        if name in self.rows:
            self.rows[name].add(figures)
            say(f"{name}: {figures['seconds']:.2f} s")

    def _ended(self, name: str, started: RunningTrainer, report: Path) -> dict[str, float]:
        ended = started.end()
        client = json.loads(report.read_text()) if report.exists() else {}
        digests = ended.result["digests"]
        self.digests = self.digests or digests
        if digests != self.digests:
            self.complaints.append(f"{name}: the binaries differ from those of the first process")
        return {
            "seconds": ended.result["seconds"],
            "process_s": ended.seconds,
            "kernels": ended.result["kernels"],
            "compiles": ended.result["compiles"],
            "hits": ended.result["hits"],
            "by_daemon": client.get("kernels_by_daemon", 0),
            "from_store": client.get("kernel_hits", 0),
        }

    def _check(self, name: str, figures: dict[str, float]) -> None:
        """Complain of what does not hold of what the bench is there to show."""
        if name == "daemon_warm_empty" and (figures["compiles"] or figures["hits"] != figures["kernels"]):
            self.complaints.append(f"{name}: a kernel was compiled")
        if name in {"daemon_cold", "four_at_once"} and (
            figures["compiles"] or figures["daemon_compiles"] != figures["kernels"]
        ):
            counted = f"{figures['daemon_compiles']:.0f} compiles by the daemon and {figures['compiles']:.0f} elsewhere"
            self.complaints.append(f"{name}: {counted}, of {figures['kernels']:.0f} kernels")


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    parser = arguments("kernels", __doc__, ROWS, rounds=3)
    parser.add_argument("--targets", default=",".join(TARGETS), help="as backend:architecture, separated by commas")
    options = parser.parse_args(argv)
    try:
        triton = version("triton")
    except PackageNotFoundError:
        say("There is no triton here: pip install triton")
        return 1
    chosen = [row for row in ROWS if row in options.rows or row in {_NEEDS.get(name) for name in options.rows}]
    with tempfile.TemporaryDirectory(prefix="cd-kernels-") as folder:
        bench = Kernels(Path(folder), options.targets.split(","), {name: Row() for name in chosen})
        try:
            bench.warm_up()
            for number in range(options.rounds):
                say(f"round {number + 1} of {options.rounds}")
                bench.round()
        except (BenchError, ServeError) as error:
            complain(error)
            return 1
    for complaint in dict.fromkeys(bench.complaints):
        complain(complaint)
    more: dict[str, Any] = {
        "targets": options.targets.split(","),
        "triton": triton,
        "binaries_equal": not any("binaries" in complaint for complaint in bench.complaints),
        "complaints": list(dict.fromkeys(bench.complaints)),
    }
    finish("kernels", bench.rows, RATIOS, options.out, **more)
    return 1 if bench.complaints else 0


if __name__ == "__main__":
    run_bench(main)
