"""What the client costs where it has nothing to do: at import, with the daemon absent, with everything local, per step.

    python -m benches.overhead

Rows: `off` and `absent`, a process that imports torch, with the variable unset, and set with no daemon there;
`client_import`, the client's own import; `local_off`, `local_absent` and `local_on`, a compiled trainer whose graphs
torch's local cache has: without the client, with it and no daemon, with both; `local_skip`, as `local_on`, with the
trace put back: a running trainer is to pay nothing for it. `absent_adds` and `local_absent_adds` are the differences,
each against its own neighbour; `daemon_idle` is a daemon that has just come up. Figures are milliseconds of a whole
process and of a steady step, and MiB. Every other turn goes the other way round.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benches.harness.daemon import ServedDaemon, ServeError, clean_environment
from benches.harness.measure import BenchError, CacheDirs, Ratio, Row, RunningTrainer, arguments, finish
from benches.harness.output import complain, say
from benches.harness.processes import run_bench, run_child

ROWS = ("off", "absent", "client_import", "local_off", "local_absent", "local_on", "local_skip", "daemon_idle")
RATIOS = (
    Ratio("absent", "off", None, "process_ms"),
    Ratio("local_absent", "local_off", None, "process_ms"),
    Ratio("local_on", "local_off", None, "process_ms"),
    Ratio("local_absent", "local_off", None, "step_ms"),
    Ratio("local_on", "local_off", None, "step_ms"),
    Ratio("local_skip", "local_on", None, "process_ms"),
    Ratio("local_skip", "local_on", 1.02, "step_ms"),
)
LIMITS = {"absent_adds:process_ms": 10.0, "daemon_idle:rss_mib": 60.0}
_PAIRS = {"absent_adds": ("absent", "off"), "local_absent_adds": ("local_absent", "local_off")}
_STEPS = 40
_TURNS = 6
_TORCH = "import time; t = time.perf_counter(); import torch; print(time.perf_counter() - t)"
_CLIENT = "import time; t = time.perf_counter(); import compile_client; print(time.perf_counter() - t)"


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    options = arguments("overhead", __doc__, ROWS, rounds=9).parse_args(argv)
    rows = {name: Row() for name in options.rows}
    try:
        with tempfile.TemporaryDirectory(prefix="overhead-") as text:
            bench = Overhead(Path(text), options.rows)
            try:
                for number in range(options.rounds):
                    for name in _order(options.rows, number):
                        rows[name].add(bench.run(name))
                    say(f"round {number + 1} of {options.rounds}")
            finally:
                bench.close()
    except (BenchError, ServeError) as error:
        complain(error)
        return 1
    for name, (above, below) in _PAIRS.items():
        if above in rows and below in rows:
            pairs = zip(rows[above].values["process_ms"], rows[below].values["process_ms"], strict=True)
            rows[name] = Row({"process_ms": [one - other for one, other in pairs]})
    finish("overhead", rows, RATIOS, options.out, limits=LIMITS)
    return 0


def _order(names: list[str], number: int) -> list[str]:
    """Return a round's rows in their order: the short ones, whose difference is small, again and again."""
    short = [name for name in names if name in ("off", "absent")]
    turns = [name for turn in range(_TURNS) for name in short[:: -1 if turn % 2 else 1]]
    return [*turns, *[name for name in names if name not in short][:: -1 if number % 2 else 1]]


class Overhead:
    """The folders, the daemon, and one way to run each row."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder = folder
        self._absent = {"TORCH_COMPILE_CLIENT": "1", "COMPILER_DAEMON_DIR": str(folder / "nobody")}
        self._daemon: ServedDaemon | None = None
        self._local: dict[str, tuple[CacheDirs, dict[str, str]]] = {}
        if {"local_on", "local_skip"} & set(names):
            self._daemon = ServedDaemon(folder / "served")
            self._daemon.start()
        for name in names:
            if name.startswith("local"):
                self._local[name] = (CacheDirs.fresh(folder / name), self._client(name))
                _trainer(*self._local[name])  # fills its caches, and leaves its trace with the daemon

    def run(self, name: str) -> dict[str, float]:
        """Measure a row once."""
        if name in self._local:
            figures = _trainer(*self._local[name])
            if (figures["frames_traced"] == 0) != (name == "local_skip"):
                raise BenchError(f"{name} traced {figures['frames_traced']:.0f} functions")
            return figures
        if name == "daemon_idle":
            return self._idle()
        return _python(_CLIENT if name == "client_import" else _TORCH, self._absent if name == "absent" else {})

    def close(self) -> None:
        """Stop the daemon."""
        if self._daemon is not None:
            self._daemon.stop()

    def _client(self, name: str) -> dict[str, str]:
        if name in ("local_on", "local_skip"):
            assert self._daemon is not None
            skip = {"TORCH_COMPILE_CLIENT_SKIP_TRACE": "1"} if name == "local_skip" else {}
            return {"TORCH_COMPILE_CLIENT": "1", "COMPILER_DAEMON_DIR": str(self._daemon.directory), **skip}
        return self._absent if name == "local_absent" else {}

    def _idle(self) -> dict[str, float]:
        daemon = ServedDaemon(self._folder / "idle")
        seconds = daemon.start()
        try:
            daemon.status()
            return {"rss_mib": daemon.sample().rss_bytes / 2**20, "start_ms": seconds * 1000}
        finally:
            daemon.stop()


def _python(program: str, more: dict[str, str]) -> dict[str, float]:
    """Run a few lines in a fresh process; return milliseconds of the process and of what they print."""
    begun = time.perf_counter()
    done = run_child(
        [sys.executable, "-c", program], env=clean_environment() | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if done.returncode:
        raise BenchError(f"a process ended with exit code {done.returncode}: {done.stderr.decode()[-2000:]}")
    return {"process_ms": (time.perf_counter() - begun) * 1000, "import_ms": float(done.stdout) * 1000}


def _trainer(home: CacheDirs, more: dict[str, str]) -> dict[str, float]:
    command = ["-m", "benches.startup.trainer", "--resolutions", "16", "--steps", str(_STEPS)]
    ended = RunningTrainer(command, home, **more).end()
    if ended.result["cpp_builds"] > 1 and (home.path / "filled").exists():  # torch builds one of its own each time
        raise BenchError(f"a trainer built something although all was local: {json.dumps(ended.result)}")
    (home.path / "filled").touch()
    steady = sorted(taken for _, taken in ended.result["steps"][5:])
    figures = {"process_ms": ended.seconds * 1000, "step_ms": steady[len(steady) // 2] * 1000}
    return {**figures, "frames_traced": ended.result["frames_traced"]}


if __name__ == "__main__":
    run_bench(main)
