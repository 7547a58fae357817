"""The stall bench's trainer: steady at one resolution, until another one appears.

    python -m benches.stall.trainer --resolutions 16,32 --steps 10

At each resolution in turn: so many steps; then, where graphs are still on their way (`async`), a pause until they have
been swapped in; then as many steps again. The steps, and so their losses, are the same for every way of compiling.
Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

_SWAP_S = 600.0
_OUTCOMES = ("hits_local", "hits", "compiled_by_daemon", "compiled_here")

_PHASES = {"trace_s": "bytecode_tracing", "backend_s": "OutputGraph.call_user_compiler", "guards_s": "build_guards"}
"""What torch itself measures of a graph's way, by our names; the first holds the second."""


def main() -> None:
    """Train at each resolution in turn."""
    parser = argparse.ArgumentParser(prog="python -m benches.stall.trainer", description=__doc__)
    parser.add_argument("--resolutions", default="16,32")
    parser.add_argument("--steps", type=int, default=10, help="at each resolution, before the swap and after it")
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--eager", action="store_true")
    options = parser.parse_args()

    from benches.harness.compile_counts import start_counting
    from benches.multires.__main__ import trainer_for
    from benches.multires.presets import preset
    from diffusion.buckets import BucketConfig, BucketSchedule
    from diffusion.parametrization import Mode

    class InTurn(BucketSchedule):
        """One resolution after the other, each for twice the steps."""

        def at(self, step: int) -> Any:
            """Return the bucket of a step."""
            return self.buckets[step // (2 * options.steps)]

    sides = tuple(int(side) for side in options.resolutions.split(","))
    config = preset("demo")
    buckets: BucketConfig = replace(config.buckets, resolutions=sides, visits=None)
    config = replace(
        config,
        backbone=replace(config.backbone, depth=options.depth),
        buckets=buckets,
        train=replace(config.train, steps=2 * options.steps * len(sides), compile=not options.eager),
    )
    counts = start_counting()
    trainer = trainer_for(config, Mode.NAIVE)
    trainer.buckets = InTurn(buckets, seed=config.train.seed)
    steps: list[dict[str, Any]] = []
    swapped: list[int | None] = []
    """By resolution, before which of its steps the graphs were in place; None where they never were."""
    first: dict[str, float] = {}
    """Where the first step at the last resolution went."""
    before = _phases()
    for record in trainer.steps():
        place = record.step % (2 * options.steps)
        if place == 0:
            swapped.append(None)
            first = {name: seconds - before[name] for name, seconds in _phases().items()}
        if swapped[-1] is None and _settled():
            swapped[-1] = place + 1
        steps.append({"resolution": record.resolution, "loss": record.loss, "seconds": record.seconds})
        if place == options.steps - 1:
            _wait_for_swaps()
        before = _phases()
    used = os.times()
    print(
        json.dumps(
            {
                "steps": steps,
                "swapped": swapped,
                "first": first,
                "graphs": counts.graphs or 0,
                "cpp_builds": counts.cpp_builds or 0,
                "cpu_s": used.user + used.system + used.children_user + used.children_system,
            }
        ),
        flush=True,
    )


def _settled() -> bool:
    """Whether every graph of this process is compiled; without the client dynamo leaves none uncompiled."""
    from compile_client import counters

    counted: Mapping[str, int] = counters()
    return sum(counted.get(name, 0) for name in _OUTCOMES) >= counted.get("graphs", 0)


def _phases() -> dict[str, float]:
    from torch._dynamo.utils import compilation_time_metrics

    return {ours: sum(compilation_time_metrics.get(theirs, [])) for ours, theirs in _PHASES.items()}


def _wait_for_swaps() -> None:
    end = time.monotonic() + _SWAP_S
    while not _settled() and time.monotonic() < end:
        time.sleep(0.05)


if __name__ == "__main__":
    main()
