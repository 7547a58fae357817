"""The GPU check's trainer: the lab's model in one of torch.compile's modes, some steps at each resolution.

    python -m benches.gpu.trainer --device cuda --mode max-autotune-no-cudagraphs

On a GPU its local attention is flex_attention. Prints one JSON document: losses, seconds, and what was compiled and
timed in this process: Triton compiles as Triton's listener counts them (kernels that inductor hands to processes of its
own are not seen; TORCHINDUCTOR_COMPILE_THREADS=1 has none), autotuning as candidates of kernels, and choices between
kernels, that were timed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from typing import Any

_STARTED = float(os.environ.get("BENCH_STARTED") or time.time())


@dataclass(slots=True)
class Counts:
    """What this process compiled and timed."""

    triton_compiles: int = 0
    candidates_timed: int = 0

    def start(self) -> None:
        """Begin to count; after the client was switched on, before anything is compiled."""
        self._count_candidates()
        try:
            from triton import knobs
        except ImportError:
            return
        before = knobs.compilation.listener

        def listen(**about: Any) -> None:
            self.triton_compiles += not about.get("cache_hit", False)
            if before is not None:
                before(**about)

        knobs.compilation.listener = listen

    def _count_candidates(self) -> None:
        from torch._inductor.runtime.triton_heuristics import CachingAutotuner

        bench: Any = CachingAutotuner.bench

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.candidates_timed += 1
            return bench(*args, **kwargs)

        CachingAutotuner.bench = counted  # type: ignore[method-assign]  # counting is the purpose


def main() -> None:
    """Train at each resolution."""
    parser = argparse.ArgumentParser(prog="python -m benches.gpu.trainer", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mode", default="eager", help="one of torch.compile's modes, or eager")
    parser.add_argument("--resolutions", default="16,32")
    parser.add_argument("--steps", type=int, default=3, help="at each resolution")
    parser.add_argument("--depth", type=int, default=2)
    options = parser.parse_args()

    import torch

    import compile_client
    from benches.harness.compile_counts import start_counting
    from benches.multires.presets import preset
    from diffusion.buckets import BucketSchedule
    from diffusion.models import backbone_of
    from diffusion.objective import DenoisingObjective
    from diffusion.parametrization import Parametrization
    from diffusion.training import Trainer

    # A checkout that is not installed has no entry point that would switch the client on.
    compile_client._activate()
    counts = Counts()
    if options.mode != "eager":
        counts.start()
    builds = start_counting()
    config = preset("demo")
    sides = tuple(int(side) for side in options.resolutions.split(","))
    torch.manual_seed(config.train.seed)
    objective = DenoisingObjective(
        backbone_of(replace(config.backbone, depth=options.depth)), Parametrization(target=config.target)
    )
    trainer = Trainer(
        objective=objective,
        schedule=config.schedule,
        source=config.source,
        buckets=BucketSchedule(replace(config.buckets, resolutions=sides, visits=None), seed=config.train.seed),
        config=replace(config.train, steps=options.steps * len(sides), compile=False),
        device=options.device,
    )
    if options.mode != "eager":
        # The lab's trainer compiles in the default mode only.
        trainer._forward = torch.compile(trainer.objective, dynamic=False, fullgraph=True, mode=options.mode)
    losses = [record.loss for record in trainer.steps()]
    seconds = time.time() - _STARTED
    used = os.times()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "losses": losses,
                "graphs": builds.graphs or 0,
                "cpp_builds": builds.cpp_builds or 0,
                "triton_compiles": counts.triton_compiles,
                "autotunes": counts.candidates_timed + (builds.operators_timed or 0),
                "cpu_s": used.user + used.system + used.children_user + used.children_system,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
