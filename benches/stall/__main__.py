"""What a training feels when a resolution appears for the first time: its first step there, and its longest.

    python -m benches.stall
    python -m benches.stall --rows eager,daemon_async --rounds 1

Rows: `torch`; `daemon_cold`; `daemon_warm` (the daemon has compiled it before); `daemon_async` (a cold daemon, and
TORCH_COMPILE_CLIENT_ASYNC=1: graphs run eagerly until their artifacts are there); `daemon_async_passive` (the same with
OMP_WAIT_POLICY=passive: OpenMP's threads do not spin while a compiler has their core); `eager`. Each is the lab's model
in a fresh process with empty folders, steady at 16 px before its first step at 32 px. Fails where the compiled rows'
losses differ by a bit, where `async` leaves the eager losses or does not swap later in the run, or where a compile
is missing or done twice.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benches.harness.daemon import ServedDaemon, ServeError
from benches.harness.measure import (
    BenchError,
    CacheDirs,
    Ratio,
    Row,
    RunningTrainer,
    TrainerResult,
    arguments,
    finish,
)
from benches.harness.output import complain, say
from benches.harness.processes import run_bench

ROWS = ("torch", "daemon_cold", "daemon_warm", "daemon_async", "daemon_async_passive", "eager")
_ASYNC = ("daemon_async", "daemon_async_passive")
TOLERANCE = 1e-3
"""Of a loss, relative: eager and compiled arithmetic round differently, and training carries it on."""


@dataclass(frozen=True, slots=True)
class FirstToSteady(Ratio):
    """A row's first step at the new resolution over the other's usual step there."""

    @property
    def name(self) -> str:
        """As it stands in the document."""
        return f"{self.above}/{self.below}:first_step_s/new_step_s"

    def of(self, rows: Mapping[str, Row]) -> float | None:
        """Return it; None where one of the rows was not run."""
        if self.above not in rows or self.below not in rows:
            return None
        return round(rows[self.above].median("first_step_s") / rows[self.below].median("new_step_s"), 4)


RATIOS = (
    FirstToSteady("daemon_async", "eager", 1.3),
    FirstToSteady("daemon_async_passive", "eager"),
    Ratio("daemon_async", "eager", None, "first_step_s"),
    Ratio("daemon_async", "torch", None, "longest_pause_s"),
    Ratio("daemon_async_passive", "torch", None, "longest_pause_s"),
    Ratio("daemon_warm", "torch", None, "longest_pause_s"),
    Ratio("daemon_cold", "torch", None, "longest_pause_s"),
    Ratio("daemon_async", "torch", None, "new_step_s"),
)

_SHOWN = ("first_step_s", "first_trace_s", "first_backend_s", "longest_pause_s", "waiting_step_s", "new_step_s")


class Stall:
    """The folders, the daemons, and one way to start the trainer for each row."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self._folder = folder
        self._resolutions: str = options.resolutions
        self._command = ["-m", "benches.stall.trainer", "--resolutions", options.resolutions]
        self._command += ["--steps", str(options.steps), "--depth", str(options.depth)]
        self._daemons = 0
        self._daemon: ServedDaemon | None = None

    def run(self, row: str) -> TrainerResult:
        """Start the trainer in one way, and wait for it."""
        home = CacheDirs.fresh(self._folder / "home")
        match row:
            case "eager":
                return RunningTrainer([*self._command, "--eager"], home).end()
            case "torch":
                return RunningTrainer(self._command, home).end()
            case "daemon_async":
                return self._served(home, self._new_daemon(), TORCH_COMPILE_CLIENT_ASYNC="1")
            case "daemon_async_passive":
                passive = {"TORCH_COMPILE_CLIENT_ASYNC": "1", "OMP_WAIT_POLICY": "passive"}
                return self._served(home, self._new_daemon(), **passive)
            case "daemon_cold":
                return self._served(home, self._new_daemon())
            case _:
                if self._daemon is None:
                    self.run("daemon_cold")
                    CacheDirs.fresh(home.path)
                assert self._daemon is not None
                return self._served(home, self._daemon)

    def close(self) -> None:
        """Stop the daemon."""
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None

    def _new_daemon(self) -> ServedDaemon:
        self.close()
        self._daemons += 1
        self._daemon = ServedDaemon(self._folder / f"served-{self._daemons}")
        self._daemon.start()
        return self._daemon

    def _served(self, home: CacheDirs, daemon: ServedDaemon, **environment: str) -> TrainerResult:
        report = home.path / "report.json"
        before = daemon.status().counters.get("compiles_started", 0)
        ended = RunningTrainer(
            self._command,
            home,
            TORCH_COMPILE_CLIENT="1",
            TORCH_COMPILE_CLIENT_REPORT=str(report),
            COMPILER_DAEMON_DIR=str(daemon.directory),
            **environment,
        ).end()
        ended.result["client"] = json.loads(report.read_text())
        ended.result["daemon_compiles"] = daemon.status().counters.get("compiles_started", 0) - before
        return ended


def figures(result: Mapping[str, Any], steps: int) -> dict[str, float]:
    """Return what the last resolution's appearance cost, from what the trainer said."""
    seconds = [step["seconds"] for step in result["steps"]]
    new = seconds[-2 * steps :]
    return {
        "first_step_s": new[0],
        **{f"first_{name}": value for name, value in result["first"].items()},
        "longest_pause_s": max(new),
        "waiting_step_s": statistics.median(new[1:steps]),
        "new_step_s": statistics.median(new[steps:]),
        "steady_step_s": statistics.median(seconds[-3 * steps : -2 * steps]),
        "swap_step": result["swapped"][-1] or 0,
    }


def complaints(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what does not hold of what a round showed, by row."""
    losses = {row: [step["loss"] for step in result["steps"]] for row, result in results.items()}
    found = []
    compiled = {row: of for row, of in losses.items() if row != "eager" and row not in _ASYNC}
    if len({json.dumps(of) for of in compiled.values()}) > 1:
        found.append(f"the losses of {', '.join(compiled)} differ")
    others = [losses[row] for row in ("eager", *compiled) if row in losses]
    for row in _ASYNC:
        for ours, theirs in zip(losses.get(row, []), others[0] if others else [], strict=False):
            if abs(ours - theirs) > TOLERANCE * abs(theirs):
                found.append(f"{row} has a loss of {ours} where {theirs} is right")
                break
    for row, result in results.items():
        if (client := result.get("client")) is None:
            continue
        graphs = len(result["swapped"])
        compiles = 0 if row == "daemon_warm" else graphs
        named = "hits" if row == "daemon_warm" else "compiled_by_daemon"
        if client["fallbacks"] or client["compiled_here"] or client[named] != graphs or client["graphs"] != graphs:
            found.append(f"{row}: the client counted {client}")
        if result["daemon_compiles"] != compiles or result["cpp_builds"]:
            found.append(
                f"{row}: {result['daemon_compiles']} compiles by the daemon, {result['cpp_builds']} builds here"
            )
        if row in _ASYNC and any(before is None or before < 2 for before in result["swapped"]):
            found.append(f"{row} did not swap after the first step: {result['swapped']}")
    return found


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    parser = arguments("stall", __doc__, ROWS, rounds=3)
    parser.add_argument("--resolutions", default="16,32", help="in which order they appear (default 16,32)")
    parser.add_argument("--steps", type=int, default=10, help="at each, before the swap and after it (default 10)")
    parser.add_argument("--depth", type=int, default=2, help="layers of the model (default 2)")
    options = parser.parse_args(argv)
    rows = {name: Row() for name in options.rows}
    try:
        with tempfile.TemporaryDirectory(prefix="stall-") as text:
            _rounds(Path(text), rows, options)
    except (BenchError, ServeError) as error:
        complain(error)
        return 1
    more = {"resolutions": options.resolutions, "steps": options.steps}
    finish("stall", rows, RATIOS, options.out, show=_SHOWN, **more)
    return 0


def _rounds(folder: Path, rows: dict[str, Row], options: argparse.Namespace) -> None:
    stall = Stall(folder, options)
    try:
        for number in range(options.rounds):
            results: dict[str, dict[str, Any]] = {}
            for name, row in rows.items():
                ended = stall.run(name)
                results[name] = ended.result
                row.add(found := figures(ended.result, options.steps))
                say(f"round {number + 1}: {name}, first step {found['first_step_s']:.3f} s")
            if wrong := complaints(results):
                raise BenchError("; ".join(wrong))
    finally:
        stall.close()


if __name__ == "__main__":
    run_bench(main)
