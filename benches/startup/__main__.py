"""From a process's start to its last backward: torch alone, with its caches, and with the daemon.

    python -m benches.startup
    python -m benches.startup --models multires@4,multires@8,gradients,backbones --rounds 1
    python -m benches.startup --models dit@24 --state /tmp/dit --stop-after 280 --add --out warm.json

Rows: `eager`; `traced`, with torch's compiler imported and dynamo's graphs run eagerly, which no cache of compiled code
can be faster than by much; `torch_cold`; `torch_local_warm` (its own caches, kept); `torch_portable_empty` (the file of
`torch.compiler.save_cache_artifacts`, into empty folders); `torch_redis_empty` (its remote cache on a real
redis-server, into empty folders); `torch_precompile_local` and `torch_precompile_portable`, the same two with
`TORCH_CACHING_PRECOMPILE=1`; `daemon_cold`; `daemon_warm_empty`; `daemon_warm_local`; `daemon_skip_empty`, with traces
skipped (`TORCH_COMPILE_CLIENT_SKIP_TRACE=1`); `eager_x8` and `daemon_skip_x8`, eight at once.

Every process is fresh; "empty" is inductor's and Triton's cache folders and TMPDIR, where torch keeps precompiled
headers. The losses of all compiled rows must be the same bit for bit, and the warm rows of the daemon must build
nothing, or the bench fails. torch's precompile cannot run every model: its row then says how it ended.
A model is that of one of the lab's benches, `gpt` or `dit`, at its own depth or, after `@`, at another one.
`--without collector,digests,traces,imports` adds rows: `daemon_skip_empty`, less one part of the fast start each.

With `--state` a measurement may be stopped at any time (`--stop-after`, or by a signal), and the same command goes on.
With `--add` the document that `--out` names keeps its rows of other models.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benches.harness.daemon import ServeError
from benches.harness.measure import BenchError, Ratio, Row, arguments, finish
from benches.harness.output import complain, say
from benches.harness.processes import run_bench
from benches.harness.redis_server import redis_served
from benches.startup.journal import Journal
from benches.startup.models import MODELS
from benches.startup.plain import PLAIN
from benches.startup.rows import FRAMES, MAY_FAIL, PARTS, ROWS, UNCOMPILED, WITHOUT, ratios_of
from benches.startup.starts import Startup

_STOPPED = 3
"""The exit code where time was up before the end."""
_SHOWN = ("seconds", "cpu_s", "import_torch_s", "trace_s", "load_s", "first_run_s", "frames_traced", "cpp_builds")


class _TimeIsUpError(Exception):
    """What is left is for the next call."""


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    options = _options(argv)
    names = [*options.rows, *(WITHOUT + part for part in options.without)]
    until = time.monotonic() + options.stop_after
    rows: dict[str, Row] = {}
    ratios: list[Ratio] = []
    failures: dict[str, str] = {}
    limits: dict[str, float] = {}
    suffixed = options.add or len(options.models) > 1
    try:
        with tempfile.TemporaryDirectory(prefix="startup-") as text, contextlib.ExitStack() as stack:
            redis = stack.enter_context(redis_served(Path(text))) if "torch_redis_empty" in options.rows else None
            for model in options.models:
                suffix = f"@{model}" if suffixed else ""
                folder = (options.state or Path(text)) / model
                about = {"model": model, "resolutions": options.resolutions, "torch": torch.__version__}
                journal = Journal(folder, about)
                startup = Startup(folder, model, options.resolutions, redis, journal)
                found, failed = _one_model(startup, journal, model, names, options.rounds, until)
                rows |= {f"{name}{suffix}": row for name, row in found.items()}
                failures |= {f"{name}{suffix}": how for name, how in failed.items()}
                row, _, figure = FRAMES.partition(":")
                limits |= {f"{row}{suffix}:{figure}": 0.0}
                ratios += [
                    Ratio(f"{r.above}{suffix}", f"{r.below}{suffix}", r.goal, r.figure)
                    for r in ratios_of(model, options.without)
                ]
    except _TimeIsUpError:
        say("time is up: the same command goes on from here")
        return _STOPPED
    except (BenchError, ServeError) as error:
        complain(error)
        return 1
    kept = options.out if options.add else None
    more = {"models": options.models, "resolutions": options.resolutions, "failures": failures}
    command = f"python -m benches.startup {' '.join(_told(argv))}"
    finish("startup", rows, ratios, options.out, limits=limits, show=_SHOWN, added_to=kept, command=command, **more)
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = arguments("startup", __doc__, ROWS, rounds=3)
    parser.add_argument("--models", type=_models, default=["multires"], help="by commas (default multires)")
    parser.add_argument("--resolutions", default="16,32,64", help="of the images, by commas (default 16,32,64)")
    parts = ", ".join(PARTS)
    parser.add_argument(
        "--without", type=_parts, default=[], help=f"also without these, by commas, one at a time ({parts})"
    )
    parser.add_argument("--state", type=Path, help="keep folders and figures here, and go on with what is there")
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="begin nothing after so many seconds")
    parser.add_argument("--add", action="store_true", help="add to the document that is at --out")
    options = parser.parse_args(argv)
    if options.stop_after != float("inf") and options.state is None:
        parser.error("--stop-after needs --state: nothing would be left to go on from")
    if options.add and options.out is None:
        parser.error("--add needs --out")
    return options


def _told(argv: list[str] | None) -> list[str]:
    """Return the command's words, without those that name places of this machine."""
    words = list(sys.argv[1:] if argv is None else argv)
    for option in ("--state", "--out", "--stop-after"):
        while option in words:
            at = words.index(option)
            del words[at : at + 2]
    return [word for word in words if word != "--add"]


def _models(given: str) -> list[str]:
    models = [model for model in given.split(",") if model]
    known = [*MODELS, *PLAIN]
    for model in models:
        name, _, depth = model.partition("@")
        if name not in known or (depth and not depth.isdecimal()):
            raise argparse.ArgumentTypeError(f"no model {model}; there are {', '.join(known)}, with @DEPTH or without")
    return models


def _parts(given: str) -> list[str]:
    parts = [part for part in given.split(",") if part]
    if unknown := [part for part in parts if part not in PARTS]:
        raise argparse.ArgumentTypeError(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return parts


def _one_model(
    startup: Startup, journal: Journal, model: str, names: list[str], rounds: int, until: float
) -> tuple[dict[str, Row], dict[str, str]]:
    """Return the rows of a model, and how those ended that could not be run."""
    rows = {name: Row() for name in names}
    losses: dict[str, Any] = {}
    failures: dict[str, str] = {}

    def tell(text: str) -> None:
        if time.monotonic() > until:
            raise _TimeIsUpError
        say(f"{model}: {text}")

    try:
        for number in range(rounds):
            for name in names:
                figures = journal.figures(name, number)
                if figures is None:
                    tell(f"round {number + 1}, {name}")
                    figures = journal.measured(name, number, startup.run(name, tell))
                    say(f"{model}: {name} {_came_to(figures)}")
                if "failed" in figures:
                    failures[name] = f"it ended: {figures['failed']}"
                    continue
                losses[name] = figures["losses"]
                rows[name].add({key: value for key, value in figures.items() if key not in ("row", "round", "losses")})
    finally:
        startup.close()
    found = {name: row for name, row in rows.items() if row.values}
    failures |= _check(found, losses)
    return found, failures


def _came_to(figures: dict[str, Any]) -> str:
    return figures.get("failed") or f"{figures['seconds']:.1f} s, {figures['frames_traced']:.0f} traced"


def _check(rows: dict[str, Row], losses: dict[str, Any]) -> dict[str, str]:
    """Return which rows of torch's precompile have other losses; raise `BenchError` where others have."""
    compiled = {name: found for name, found in losses.items() if name not in (*UNCOMPILED, *MAY_FAIL)}
    if len({json.dumps(found) for found in compiled.values()}) > 1:
        raise BenchError(f"the losses differ: {compiled}")
    for name, row in rows.items():
        warm = name.startswith(("daemon_warm", "daemon_skip", WITHOUT))
        if warm and (max(row.values["cpp_builds"]) or max(row.values["triton_compiles"])):
            raise BenchError(f"{name} built something")
    of_all = next(iter(compiled.values()), None)
    other = [name for name in MAY_FAIL if of_all is not None and losses.get(name, of_all) != of_all]
    return {name: f"its losses are {losses[name]}, and all others' {of_all}" for name in other}


if __name__ == "__main__":
    run_bench(main)
