"""Builds objects by torch alone and by a worker's `Builds`, in a process of its own; prints the outcome as JSON.

python build_samples.py FOLDER
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch._inductor import codecache
from torch._inductor import config as inductor_config
from torch._inductor.codecache import CppPythonBindingsCodeCache
from torch._inductor.utils import fresh_inductor_cache

from compile_torch.kernels import SharedObjects
from compile_torch.objects import portable
from compile_torch.patches import Patches
from compile_wire.digest import digest_of
from compiler_daemon.worker.builds import Builds

_KERNEL = """
#include <torch/csrc/inductor/cpp_prefix.h>
%s
extern "C" void kernel(float* out_ptr0)
{
    out_ptr0[0] = %s;
}
"""
ALIKE = [_KERNEL % ("", f"{n}.0f") for n in (1, 2, 3)]
CLASHING = [_KERNEL % (f'extern "C" float helper({t} x) {{ return x; }}', "helper(4)") for t in ("int", "long")]
INCLUDING = [_KERNEL % ("#include <vector>", f"std::vector<float>{{{n}.0f}}[0]") for n in (5, 6)]
PLACED = [_KERNEL % ("", f'{n * 1000}.0f + __LINE__ + (std::strstr(__FILE__, ".main.cpp") ? 0 : 100)') for n in (1, 2)]
SHARED = [_KERNEL % ("", f"float(std::to_string({n}).size())") for n in (10, 200, 3000)]
BROKEN = [_KERNEL % ("", "nobody_knows_this"), _KERNEL % ("", "7.0f")]


def function(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Return a value whose kernels have reductions, exponentials and outer loops."""
    y = torch.nn.functional.layer_norm(x, (64,), w)
    return torch.nn.functional.gelu(y @ y.transpose(-1, -2)).softmax(-1).sum(0)


def main(folder: Path) -> None:
    """Build everything in both ways and print the outcome."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign] # the shortest handler
    logging.getLogger("compiler_daemon.worker.builds").addHandler(handler)

    objects = SharedObjects()
    patches = Patches()
    patches.replace(codecache, "write", objects.writing)
    by_torch, out_torch = _compiled(objects, folder / "torch")
    builds = Builds(folder)
    builds.install(patches)
    builds.warm()
    by_us, out_us = _compiled(objects, folder / "ours", builds)
    results: dict[str, Any] = {
        "objects": {name: [path, by_us.get(name)] for name, path in by_torch.items()},
        "equal": torch.equal(out_torch, out_us),
        "said_at_first": list(said),
    }
    batches = (SHARED, SHARED[1:], [*SHARED[1:], SHARED[0]])
    results["batches"] = [_objects(builds, folder / f"batch-{n}", batch) for n, batch in enumerate(batches)]
    samples = {"alike": ALIKE, "clashing": CLASHING, "including": INCLUDING, "placed": PLACED, "broken": BROKEN}
    for name, sources in samples.items():
        said.clear()
        results[name] = {"values": _run(builds, sources), "said": list(said)}
    print(json.dumps(results))


def _compiled(
    objects: SharedObjects, folder: Path, builds: Builds | None = None
) -> tuple[dict[str, str], torch.Tensor]:
    folder.mkdir()
    torch.manual_seed(0)
    x, w = torch.randn(4, 32, 64), torch.randn(64)
    torch._dynamo.reset()
    CppPythonBindingsCodeCache.cache_clear()
    with inductor_config.patch(force_disable_caches=True), fresh_inductor_cache(dir=str(folder), delete=False):
        with objects.recorded() as recorded:
            out = torch.compile(function)(x, w)
        if builds is not None:
            builds.finish()
    return dict(recorded), out


def _run(builds: Builds, sources: list[str]) -> list[float | str]:
    """Build objects in one round and call each; return each object's value, or the name of its error."""
    values: list[float | str] = []
    collect = functools.partial(builds._collect, builds._round)
    loads = [CppPythonBindingsCodeCache.load_pybinding_async(["float*"], one, submit_fn=collect) for one in sources]
    builds.flush()
    for load in loads:
        out = torch.zeros(16)
        try:
            load()(out)
            values.append(float(out[0]))
        except Exception as error:  # noqa: BLE001 - which one is what is asked
            values.append(type(error).__name__)
    try:
        builds.finish()
    except Exception as error:  # noqa: BLE001 - as above
        values.append(type(error).__name__)
    return values


def _objects(builds: Builds, folder: Path, sources: list[str]) -> dict[str, str]:
    """Build objects in one round in a folder of their own; return their digests, as they are stored, by name."""
    folder.mkdir()
    CppPythonBindingsCodeCache.cache_clear()
    with fresh_inductor_cache(dir=str(folder), delete=False):
        assert len(_run(builds, sources)) == len(sources)
        paths = sorted(str(path) for path in folder.rglob("*.so"))
    return {os.path.basename(path): digest_of(data) for path, data in zip(paths, portable(paths), strict=True)}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
