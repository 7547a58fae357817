"""What the daemon does for a GPU, checked on the machine at hand in under ten minutes.

    benches/gpu_check.sh                       looks for what is missing first
    python -m benches.gpu_check --device cpu   the same steps without a GPU: a rehearsal, which says nothing of GPUs

Start-up of the lab's model (flex_attention for its local layers) in each mode of torch.compile: `torch_cold`,
`torch_local_warm`, `daemon_cold`, `daemon_warm_empty` (empty folders), `daemon_warm_counted` (the same in one process,
so that nothing escapes the counters). Then the mode reduce-overhead, which works or is refused with a reason, and the
Triton kernels of the corpus, launched and compared with torch, twice. Rows that no longer fit into the time are left
out and named. Exit code 1 where a check fails, 2 where there is no device.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benches.gpu.verdicts import Check, kernel_checks, mode_checks, reduce_overhead_check
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

MODES = ("default", "max-autotune-no-cudagraphs")
CUDAGRAPHS = "reduce-overhead"
STARTS = ("torch_cold", "torch_local_warm", "daemon_cold", "daemon_warm_empty", "daemon_warm_counted")
KERNELS = ("kernels_first", "kernels_second")
ROWS = (
    "eager",
    *(f"{start}@{MODES[0]}" for start in STARTS),
    *KERNELS,
    *(f"{start}@{CUDAGRAPHS}" for start in ("torch_cold", "daemon_cold", "daemon_warm_empty")),
    *(f"{start}@{MODES[1]}" for start in STARTS),
)
"""The longest come last: where time is up, they are left out."""

RATIOS = tuple(
    Ratio(f"{above}@{mode}", f"{below}@{mode}")
    for mode in MODES
    for above, below in (
        ("daemon_warm_empty", "torch_cold"),
        ("daemon_warm_empty", "torch_local_warm"),
        ("daemon_cold", "torch_cold"),
    )
)
_FIGURES = ("seconds", "graphs", "cpp_builds", "triton_compiles", "autotunes", "compiles")


@dataclass(slots=True)
class Session:
    """The folders, one daemon, and what each row has said so far."""

    folder: Path
    options: argparse.Namespace
    ends: float
    """On the monotonic clock."""
    daemon: ServedDaemon
    rows: dict[str, Row] = field(default_factory=dict)
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, name: str) -> None:
        """Run a row, unless time is up."""
        if time.monotonic() > self.ends:
            self.left_out.append(name)
            return
        say(f"{name} ...")
        try:
            ended = self._kernels(name) if name in KERNELS else self._trainer(name)
        except BenchError as error:
            self.failed[name] = str(error)
            return
        self.said[name] = ended.result
        row = self.rows.setdefault(name, Row())
        row.add({figure: ended.result[figure] for figure in _FIGURES if figure in ended.result})
        row.add({"process_s": ended.seconds, "cpu_s": ended.cpu_s})

    def _trainer(self, name: str) -> TrainerResult:
        start, _, mode = name.partition("@")
        options = self.options
        command = ["-m", "benches.gpu.trainer", "--device", options.device, "--mode", mode or "eager"]
        command += ["--resolutions", options.resolutions, "--steps", str(options.steps), "--depth", str(options.depth)]
        kept = CacheDirs(self.folder / f"torch-{mode}")
        fresh = f"{start.partition('_')[0]}-{mode}"
        home = kept if start == "torch_local_warm" else CacheDirs.fresh(self.folder / fresh)
        if not start.startswith("daemon"):
            return RunningTrainer(command, home).end()
        counted = {"TORCHINDUCTOR_COMPILE_THREADS": "1"} if start == "daemon_warm_counted" else {}
        return self._served(command, home, **counted)

    def _kernels(self, name: str) -> TrainerResult:
        command = ["-m", "benches.gpu.kernels", "--device", self.options.device]
        interpreted = {"TRITON_INTERPRET": "1"} if self.options.device == "cpu" else {}
        return self._served(command, CacheDirs.fresh(self.folder / name), **interpreted)

    def _served(self, command: list[str], home: CacheDirs, **environment: str) -> TrainerResult:
        report = home.path / "report.json"
        ended = RunningTrainer(
            command,
            home,
            TORCH_COMPILE_CLIENT="1",
            TORCH_COMPILE_CLIENT_REPORT=str(report),
            COMPILER_DAEMON_DIR=str(self.daemon.directory),
            **environment,
        ).end()
        # A process that asked the daemon for nothing leaves no report.
        ended.result["client"] = json.loads(report.read_text()) if report.exists() else {}
        return ended


def checks(session: Session) -> list[Check]:
    """Return what the rows that were run show."""
    found = [Check(f"{name} ends", ok=False, said=why) for name, why in session.failed.items()]
    for mode in MODES:
        said = {start: session.said[f"{start}@{mode}"] for start in STARTS if f"{start}@{mode}" in session.said}
        found += mode_checks(mode, said)
    cudagraphs = {start: session.said[name] for start in STARTS if (name := f"{start}@{CUDAGRAPHS}") in session.said}
    found += reduce_overhead_check(cudagraphs)
    found += kernel_checks([session.said[name] for name in KERNELS if name in session.said], session.options.device)
    return found


def device_name(device: str) -> str:
    """Return what the device is called; empty where there is none of this kind."""
    import torch

    if device == "cpu":
        return "CPU: a rehearsal, nothing here is a GPU's"
    if not torch.cuda.is_available():
        return ""
    return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"


def main(argv: list[str] | None = None) -> int:
    """Run the checks; return the exit code."""
    parser = arguments("gpu_check", __doc__, ROWS, rounds=1)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to rehearse")
    parser.add_argument("--resolutions", default="16,32")
    parser.add_argument("--steps", type=int, default=4, help="at each resolution (default 4)")
    parser.add_argument("--depth", type=int, default=2, help="layers of the model (default 2)")
    parser.add_argument("--budget", type=float, default=420.0, help="seconds after which no row begins (default 420)")
    options = parser.parse_args(argv)
    name = device_name(options.device)
    if not name:
        say("there is no CUDA device: nothing is measured (--device cpu rehearses the steps)")
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="gpu-") as text:
            session = _run(Path(text), options)
    except ServeError as error:
        complain(error)
        return 1
    found = checks(session)
    _tell(found, session)
    finish(
        "gpu_check",
        session.rows,
        RATIOS,
        options.out,
        device=name,
        rehearsal=options.device == "cpu",
        checks=[check.as_dict() for check in found],
        left_out=session.left_out,
        said=_kept(session.said),
    )
    return 0 if all(check.ok for check in found) else 1


def _run(folder: Path, options: argparse.Namespace) -> Session:
    daemon = ServedDaemon(folder)
    session = Session(folder, options, time.monotonic() + options.budget, daemon)
    daemon.start()
    try:
        for number in range(options.rounds):
            for name in options.rows:
                session.run(name)
                _write_so_far(session)
            say(f"round {number + 1}/{options.rounds}")
            # Only the first round finds a cold daemon.
            options.rows = [name for name in options.rows if not name.startswith(("daemon_cold", "kernels_first"))]
    finally:
        daemon.stop()
    return session


def _write_so_far(session: Session) -> None:
    """Keep what there is, for whoever ends us before we are done."""
    if (out := session.options.out) is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        rows = {name: row.as_dict() for name, row in session.rows.items()}
        out.write_text(json.dumps({"unfinished": True, "rows": rows, "said": _kept(session.said)}, indent=1) + "\n")


def _tell(found: list[Check], session: Session) -> None:
    for check in found:
        say(f"{'ok    ' if check.ok else 'FAILED'} {check.name}: {check.said}")
    if session.left_out:
        say(f"not run, for time was up: {', '.join(session.left_out)}")


def _kept(said: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return of what the rows said what figures do not have."""
    return {
        name: {what: result[what] for what in ("losses", "wrong", "client") if what in result}
        for name, result in said.items()
    }


if __name__ == "__main__":
    run_bench(main)
