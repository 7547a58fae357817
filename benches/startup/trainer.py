"""The trainer of the speed benches: forward and backward of one backbone at each resolution, compiled or eager.

    python -m benches.startup.trainer --depth 2 --resolutions 16,32,64

Prints one JSON document: losses, where the time went, what was traced, and what was built. It knows nothing of the
daemon. torch's compiler is imported where torch itself imports it, as in everybody's program.
`--save-portable FILE` writes torch's own portable cache at the end, `--load-portable FILE` reads one before compiling.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benches.startup.plain import PlainTrainer
    from diffusion.training import Trainer

_STARTED = float(os.environ.get("BENCH_STARTED") or time.time())


def main() -> None:
    """Train once at each resolution."""
    parser = argparse.ArgumentParser(prog="python -m benches.startup.trainer", description=__doc__)
    parser.add_argument(
        "--model", default="multires", help="of one of the lab's benches, gpt or dit (default multires)"
    )
    parser.add_argument("--depth", type=int, help="its layers (default: those of the bench)")
    parser.add_argument("--resolutions", default="16,32,64")
    parser.add_argument("--steps", type=int, default=1, help="steps at each resolution")
    parser.add_argument("--eager", action="store_true")
    parser.add_argument("--traced", action="store_true", help="dynamo's graphs run eagerly: no compiler behind it")
    parser.add_argument("--save-portable", type=Path)
    parser.add_argument("--load-portable", type=Path)
    options = parser.parse_args()

    import torch

    torch_s = time.time() - _STARTED
    from benches.harness.compile_counts import start_counting

    compiler_s = 0.0
    if not options.eager:
        begun = time.time()
        import torch._dynamo

        if options.traced:
            import torch._inductor.compile_fx
        compiler_s = time.time() - begun
    if options.load_portable:
        torch.compiler.load_cache_artifacts(options.load_portable.read_bytes())
    counts = start_counting()
    trainer = _trainer(
        options.model,
        depth=options.depth,
        resolutions=tuple(int(side) for side in options.resolutions.split(",")),
        steps=options.steps,
        backend=None if options.eager else "eager" if options.traced else "inductor",
    )
    built_s = time.time() - _STARTED
    loaded_s = _compiling_s()
    steps = [(record.loss, record.resolution, record.seconds) for record in trainer.steps()]
    seconds = time.time() - _STARTED
    if options.save_portable:
        saved = torch.compiler.save_cache_artifacts()
        assert saved is not None
        options.save_portable.write_bytes(saved[0])
    used = os.times()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "losses": [loss for loss, _, _ in steps],
                "steps": [[side, taken] for _, side, taken in steps],
                "import_torch_s": torch_s,
                "import_compiler_s": compiler_s,
                "model_s": built_s - torch_s - compiler_s,
                "train_s": seconds - built_s,
                **_phases(),
                # What is left of the training: forward, backward, and loads in them.
                "first_run_s": seconds - built_s - (_compiling_s() - loaded_s),
                "inductor_modules": sum(name.startswith("torch._inductor.") for name in sys.modules),
                "graphs": counts.graphs or 0,
                "cpp_builds": counts.cpp_builds or 0,
                "triton_compiles": counts.triton_compiles or 0,
                "autotunes": counts.autotunes or 0,
                "cpu_s": used.user + used.system + used.children_user + used.children_system,
            }
        ),
        flush=True,
    )


def _trainer(
    model: str, *, depth: int | None, resolutions: tuple[int, ...], steps: int, backend: str | None
) -> Trainer | PlainTrainer:
    from benches.startup.plain import PLAIN

    if model in PLAIN:
        return PLAIN[model](depth, steps, backend)
    from benches.startup.models import MODELS, trainer_of

    if model not in MODELS:
        raise SystemExit(f"no model {model}; there are {', '.join([*MODELS, *PLAIN])}")
    return trainer_of(model, depth=depth, resolutions=resolutions, steps=steps, backend=backend)


_PHASES = {
    "trace_s": "bytecode_tracing",
    "backend_s": "OutputGraph.call_user_compiler",
    "guards_s": "build_guards",
    "torch_key_s": "inductor_codecache_torch_key",
    "load_s": "PyCodeCache.load_by_key_path",
    "inductor_s": "fx_codegen_and_compile",
}
"""What torch itself measures, by our names. `backend_s` holds the last three: everything behind dynamo."""


def _phases() -> dict[str, float]:
    """Return seconds by phase, and how often dynamo traced."""
    from torch._dynamo.utils import compilation_time_metrics

    found = {ours: sum(compilation_time_metrics.get(theirs, [])) for ours, theirs in _PHASES.items()}
    return {**found, "frames_traced": len(compilation_time_metrics.get("bytecode_tracing", []))}


def _compiling_s() -> float:
    from torch._dynamo.utils import compilation_time_metrics

    return sum(compilation_time_metrics.get("_compile.compile_inner", []))


if __name__ == "__main__":
    main()
