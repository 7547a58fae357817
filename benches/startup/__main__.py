"""From a process's start to its last backward, at three resolutions: torch alone, with its caches, and with the daemon.

    python -m benches.startup
    python -m benches.startup --models multires@4,multires@8,gradients,backbones --rounds 1

Rows: `eager`; `traced`, with torch's compiler imported and dynamo's graphs run eagerly, which no compile cache can be
faster than by much; `torch_cold`; `torch_local_warm` (its own caches, kept); `torch_portable_empty` (the file of
`torch.compiler.save_cache_artifacts`, into empty folders); `torch_redis_empty` (its remote cache on a real
redis-server, into empty folders); `daemon_cold`; `daemon_warm_empty`; `daemon_warm_local`. Every process is fresh;
"empty" is inductor's and Triton's cache folders and TMPDIR, where torch keeps precompiled headers. The losses of all
compiled rows must be the same bit for bit, and the warm rows of the daemon must build nothing, or the bench fails.
A model is that of one of the lab's benches, at its own depth or, after `@`, at another one.
`--without collector,digests` adds rows: `daemon_warm_empty`, less one part of the fast start each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
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
from benches.harness.redis_server import redis_served
from benches.startup.models import MODELS

ROWS = (
    "eager",
    "traced",
    "torch_cold",
    "torch_local_warm",
    "torch_portable_empty",
    "torch_redis_empty",
    "daemon_cold",
    "daemon_warm_empty",
    "daemon_warm_local",
)
RATIOS = (
    Ratio("daemon_warm_empty", "torch_portable_empty", 0.25),
    Ratio("daemon_warm_empty", "torch_local_warm", 0.65),
    Ratio("daemon_cold", "torch_cold", 0.85),
    Ratio("daemon_warm_empty", "torch_redis_empty"),
    Ratio("daemon_warm_empty", "torch_cold"),
    Ratio("daemon_warm_empty", "eager"),
    Ratio("daemon_warm_empty", "traced"),
    Ratio("traced", "torch_local_warm"),
    Ratio("daemon_warm_local", "torch_local_warm"),
)
_NEEDS = {
    "torch_local_warm": "torch_cold",
    "torch_portable_empty": "torch_cold",
    "daemon_warm_empty": "daemon_cold",
    "daemon_warm_local": "daemon_cold",
}
"""Rows that live on what another has left behind; that one is then run first, once."""
_PARTS = ("collector", "digests")
_WITHOUT = "daemon_without_"


class Startup:
    """One model: the folders, the servers, and one way to start the trainer for each row."""

    def __init__(self, folder: Path, model: str, resolutions: str, redis: Path | None) -> None:
        self._folder = folder
        name, _, depth = model.partition("@")
        self._command = ["-m", "benches.startup.trainer", "--model", name, "--resolutions", resolutions]
        self._command += ["--depth", depth] if depth else []
        self._redis = redis
        self._portable = folder / "portable.bin"
        self._redis_filled = False
        self._daemons = 0
        self._daemon: ServedDaemon | None = None

    def run(self, row: str) -> TrainerResult:
        """Start the trainer in one way, and wait for it."""
        if row.startswith(_WITHOUT):
            return self.without(row.removeprefix(_WITHOUT))
        return getattr(self, f"_{row}")()  # type: ignore[no-any-return] # one method a row

    def close(self) -> None:
        """Stop the daemon."""
        if self._daemon is not None:
            self._daemon.stop()

    def _fresh(self, name: str) -> CacheDirs:
        return CacheDirs.fresh(self._folder / name)

    def _start(self, home: CacheDirs, *more: str, **environment: str) -> TrainerResult:
        return RunningTrainer([*self._command, *more], home, **environment).end()

    def _eager(self) -> TrainerResult:
        return self._start(self._fresh("eager"), "--eager")

    def _traced(self) -> TrainerResult:
        return self._start(self._fresh("eager"), "--traced")

    def _torch_cold(self) -> TrainerResult:
        return self._start(self._fresh("torch"), "--save-portable", str(self._portable))

    def _torch_local_warm(self) -> TrainerResult:
        return self._start(CacheDirs(self._folder / "torch"))

    def _torch_portable_empty(self) -> TrainerResult:
        return self._start(self._fresh("portable"), "--load-portable", str(self._portable))

    def _torch_redis_empty(self) -> TrainerResult:
        remote = {
            "TORCHINDUCTOR_FX_GRAPH_REMOTE_CACHE": "1",
            "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE": "1",
            "TORCHINDUCTOR_REDIS_URL": f"unix://{self._redis}",
        }
        if not self._redis_filled:
            self._start(self._fresh("redis"), **remote)
            self._redis_filled = True
        return self._start(self._fresh("redis"), **remote)

    def _daemon_cold(self) -> TrainerResult:
        self.close()
        self._daemons += 1
        self._daemon = ServedDaemon(self._folder / f"served-{self._daemons}")
        self._daemon.start()
        return self._served(self._fresh("daemon"))

    def _daemon_warm_empty(self) -> TrainerResult:
        return self._served(self._fresh("daemon"))

    def without(self, part: str) -> TrainerResult:
        """Start the trainer as `daemon_warm_empty` does, less one part of the fast start."""
        return self._served(self._fresh("daemon"), TORCH_COMPILE_CLIENT_WITHOUT=part)

    def _daemon_warm_local(self) -> TrainerResult:
        return self._served(CacheDirs(self._folder / "daemon"))

    def _served(self, home: CacheDirs, **more: str) -> TrainerResult:
        assert self._daemon is not None
        report = home.path / "report.json"
        ended = self._start(
            home,
            TORCH_COMPILE_CLIENT="1",
            TORCH_COMPILE_CLIENT_REPORT=str(report),
            COMPILER_DAEMON_DIR=str(self._daemon.directory),
            **more,
        )
        client = json.loads(report.read_text())
        ended.result.update({f"client_{name}": client[name] for name in ("hits", "compiled_here", "seconds_waited")})
        ended.result.update({f"client_{name}_s": seconds for name, seconds in client["phases"].items()})
        if client["fallbacks"]:
            raise BenchError(f"the client counted failures with a daemon that is well: {client['fallbacks']}")
        return ended


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    parser = arguments("startup", __doc__, ROWS, rounds=3)
    parser.add_argument("--models", type=_models, default=["multires"], help="by commas (default multires)")
    parser.add_argument("--resolutions", default="16,32,64", help="of the images, by commas (default 16,32,64)")
    parser.add_argument(
        "--without", type=_parts, default=[], help=f"also without these, by commas, one at a time ({', '.join(_PARTS)})"
    )
    options = parser.parse_args(argv)
    names = [*options.rows, *(_WITHOUT + part for part in options.without)]
    ratios_without = [Ratio("daemon_warm_empty", _WITHOUT + part, None, "cpu_s") for part in options.without]
    ratios_without += [Ratio("daemon_warm_empty", _WITHOUT + part) for part in options.without]
    rows: dict[str, Row] = {}
    ratios: list[Ratio] = []
    try:
        with tempfile.TemporaryDirectory(prefix="startup-") as text, contextlib.ExitStack() as stack:
            redis = stack.enter_context(redis_served(Path(text))) if "torch_redis_empty" in options.rows else None
            for model in options.models:
                suffix = f"@{model}" if len(options.models) > 1 else ""
                startup = Startup(Path(text) / model, model, options.resolutions, redis)
                found = _one_model(startup, model, names, options.rounds)
                rows |= {f"{name}{suffix}": row for name, row in found.items()}
                ratios += [
                    Ratio(f"{r.above}{suffix}", f"{r.below}{suffix}", r.goal, r.figure)
                    for r in (*RATIOS, *ratios_without)
                ]
    except (BenchError, ServeError) as error:
        complain(error)
        return 1
    show = ("seconds", "cpu_s", "import_torch_s", "import_compiler_s", "trace_s", "load_s", "first_run_s", "cpp_builds")
    finish("startup", rows, ratios, options.out, models=options.models, resolutions=options.resolutions, show=show)
    return 0


def _models(given: str) -> list[str]:
    models = [model for model in given.split(",") if model]
    for model in models:
        name, _, depth = model.partition("@")
        if name not in MODELS or (depth and not depth.isdecimal()):
            raise argparse.ArgumentTypeError(f"no model {model}; there are {', '.join(MODELS)}, with @DEPTH or without")
    return models


def _parts(given: str) -> list[str]:
    parts = [part for part in given.split(",") if part]
    if unknown := [part for part in parts if part not in _PARTS]:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(_PARTS)}")
    return parts


def _one_model(startup: Startup, model: str, names: list[str], rounds: int) -> dict[str, Row]:
    rows = {name: Row() for name in names}
    losses: dict[str, Any] = {}
    try:
        needed = [_NEEDS.get(name, "daemon_cold" if name.startswith(_WITHOUT) else "") for name in names]
        for name in dict.fromkeys(filter(None, needed)):
            if name not in names:
                say(f"{model}: {name}, for the rows that need it")
                startup.run(name)
        for number in range(rounds):
            for name in names:
                ended = startup.run(name)
                say(f"{model}, round {number + 1}: {name} {ended.result['seconds']:.1f} s")
                losses[name] = ended.result.pop("losses")
                ended.result.pop("steps")
                rows[name].add({**ended.result, "process_s": ended.seconds, "cpu_s": ended.cpu_s})
    finally:
        startup.close()
    _check(rows, losses)
    return rows


def _check(rows: dict[str, Row], losses: dict[str, Any]) -> None:
    compiled = {name: found for name, found in losses.items() if name not in ("eager", "traced")}
    if len({json.dumps(found) for found in compiled.values()}) > 1:
        raise BenchError(f"the losses differ: {compiled}")
    for name in rows:
        warm = name in ("daemon_warm_empty", "daemon_warm_local") or name.startswith(_WITHOUT)
        if warm and (max(rows[name].values["cpp_builds"]) or max(rows[name].values["triton_compiles"])):
            raise BenchError(f"{name} built something")


if __name__ == "__main__":
    run_bench(main)
