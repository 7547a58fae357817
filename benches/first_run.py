"""The very first run of a small model, where nothing is there yet: plain torch, and each way to have a daemon.

    python -m benches.first_run
    python -m benches.first_run --rows torch,run --rounds 5

Rows: `torch`, without a daemon; `run`, under `compiler-daemon run`, which starts one; `auto`, with
`TORCH_COMPILE_CLIENT=auto`; `served`, with a daemon that has just come up and has no worker yet; `second`, a later
process with empty caches and the daemon of `served`. Seconds are those of the whole process, the start of its daemon
within. Every process has empty caches and an empty TMPDIR, where torch keeps precompiled headers, and every daemon an
empty directory; with `--kept-headers` the processes share a TMPDIR, as on a machine where torch has compiled before,
and the daemons' directories are empty all the same. Losses must be equal bit for bit, or the bench fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benches.harness.daemon import clean_environment
from benches.harness.measure import BenchError, CacheDirs, Ratio, Row, RunningTrainer, TrainerResult, arguments, finish
from benches.harness.output import complain, say
from benches.harness.processes import run_bench, run_child

ROWS = ("torch", "run", "auto", "served", "second")
RATIOS = (
    Ratio("run", "torch", 1.1),
    Ratio("auto", "torch", 1.1),
    Ratio("served", "torch", 1.1),
    Ratio("second", "torch"),
)
_TRAINER = """\
import json
import time

start = time.time()
import torch

imported = time.time() - start
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Linear(32, 8))
step = torch.compile(model, dynamic=False)
loss = step(torch.randn(4, 8)).square().mean()
loss.backward()
print(json.dumps({"losses": [loss.item()], "import_torch_s": imported, "train_s": time.time() - start - imported}))
"""
_STOP_S = 120.0


class FirstRuns:
    """The folders, the daemons, and one way to start the trainer for each row."""

    def __init__(self, folder: Path, *, kept_headers: bool) -> None:
        self._folder = folder
        self._kept_headers = kept_headers
        self._script = folder / "train.py"
        self._script.write_text(_TRAINER)
        self._served: Path | None = None
        self._directories = 0
        if kept_headers:
            say("torch compiles its headers, which all rows then have")
            self._start(self._home("torch"), [str(self._script)])

    def run(self, row: str) -> TrainerResult:
        """Start the trainer in one way, and wait for it."""
        home = self._home(row)
        if row == "torch":
            return self._start(home, [str(self._script)])
        if row == "second":
            return self._with(home, self._serve(), [str(self._script)], TORCH_COMPILE_CLIENT="1")
        if row == "served":
            self.close()
            return self._with(home, self._serve(), [str(self._script)], TORCH_COMPILE_CLIENT="1")
        directory = self._directory()
        try:
            if row == "auto":
                return self._with(home, directory, [str(self._script)], TORCH_COMPILE_CLIENT="auto")
            command = ["-m", "compiler_daemon", "run", "--", sys.executable, str(self._script)]
            return self._with(home, directory, command)
        finally:
            self._stop(directory)

    def close(self) -> None:
        """Stop the daemon that serves several rows."""
        if self._served is not None:
            self._stop(self._served)
            self._served = None

    def _home(self, row: str) -> CacheDirs:
        return CacheDirs.fresh(self._folder / row)

    def _start(self, home: CacheDirs, command: list[str], **more: str) -> TrainerResult:
        if self._kept_headers:
            (temporary := self._folder / "tmp").mkdir(exist_ok=True)
            more["TMPDIR"] = str(temporary)
        return RunningTrainer(command, home, **more).end()

    def _with(self, home: CacheDirs, directory: Path, command: list[str], **more: str) -> TrainerResult:
        report = home.path / "report.json"
        more |= {"COMPILER_DAEMON_DIR": str(directory), "TORCH_COMPILE_CLIENT_REPORT": str(report)}
        ended = self._start(home, command, **more)
        client = json.loads(report.read_text())
        if client["fallbacks"]:
            raise BenchError(f"the client counted failures with a daemon that is well: {client['fallbacks']}")
        names = ("hits", "compiled_by_daemon", "compiled_here", "seconds_waited")
        ended.result.update({f"client_{name}": client[name] for name in names})
        return ended

    def _directory(self) -> Path:
        self._directories += 1
        return self._folder / f"d{self._directories}"

    def _serve(self) -> Path:
        """Return the directory of the daemon that is there; where none is, start one, and wait until it answers."""
        if self._served is None:
            self._served = self._directory()
            self._operate("serve", "--detach", "--idle", "10min", directory=self._served)
        return self._served

    def _stop(self, directory: Path) -> None:
        self._operate("stop", "--now", directory=directory)

    def _operate(self, *verb: str, directory: Path) -> None:
        command = [sys.executable, "-m", "compiler_daemon", *verb, "--dir", str(directory)]
        temporary = self._folder / "daemons"
        temporary.mkdir(exist_ok=True)
        done = run_child(
            command,
            env=clean_environment() | {"TMPDIR": str(temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            timeout_s=_STOP_S,
        )
        if done.returncode:
            raise BenchError(f"`compiler-daemon {verb[0]}` failed: {done.stderr.decode()[-2000:]}")


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    parser = arguments("first_run", __doc__, ROWS, rounds=3)
    parser.add_argument(
        "--kept-headers", action="store_true", help="torch's headers are compiled already, but ours not"
    )
    options = parser.parse_args(argv)
    rows = {name: Row() for name in options.rows}
    losses: dict[str, list[float]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="first-") as text:
            runs = FirstRuns(Path(text), kept_headers=options.kept_headers)
            try:
                for number in range(options.rounds):
                    for name in options.rows:
                        ended = runs.run(name)
                        losses[name] = ended.result.pop("losses")
                        rows[name].add({"seconds": ended.seconds, **ended.result})
                        say(f"round {number + 1}: {name} {ended.seconds:.1f} s")
            finally:
                runs.close()
        _check(losses)
    except BenchError as error:
        complain(error)
        return 1
    more = " --kept-headers" if options.kept_headers else ""
    command = f"python -m benches.first_run{more} --rows {','.join(options.rows)} --rounds {options.rounds}"
    finish("first_run", rows, RATIOS, options.out, kept_headers=options.kept_headers, command=command)
    return 0


def _check(losses: Mapping[str, list[float]]) -> None:
    if len({json.dumps(found) for found in losses.values()}) > 1:
        raise BenchError(f"the losses differ: {losses}")


if __name__ == "__main__":
    run_bench(main)
