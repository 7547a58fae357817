"""A graph's Triton kernel with torch's static launcher, for an absent GPU: `write FILE`, and `read FILE` elsewhere.

The kernel is compiled as inductor has it done, except that nobody asks for a driver: there is none. Loading the binary
onto a GPU, the one step that needs one, is not done.
"""

import hashlib
import importlib.util
import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
import torch._inductor.async_compile  # noqa: F401 - otherwise the modules below import each other in a circle
import triton
from torch._inductor import config
from torch._inductor.async_compile import CompiledTritonKernels
from torch._inductor.codecache import StaticAutotunerFuture
from torch._inductor.runtime.autotune_cache import AutotuneCache
from torch._inductor.runtime.cache_dir_utils import cache_dir
from torch._inductor.runtime.hints import DeviceProperties, HeuristicType
from torch._inductor.runtime.triton_heuristics import (
    CachingAutotuner,
    Config,
    StaticTritonCompileResult,
    check_autotune_cache,
    hash_configs,
    triton_hash_to_path_key,
)
from torch._inductor.triton_bundler import TritonBundler
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from compile_torch.entries import scrub

SOURCE = """
import triton
import triton.language as tl
from torch._inductor.runtime import triton_helpers

@triton.jit
def doubled(in_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    x = tl.load(in_ptr + at, mask=at < n, other=0.0)
    tl.store(out_ptr + at, triton_helpers.maximum(x, 0.0) * 2, mask=at < n)
"""
SIGNATURE = {"in_ptr": "*fp32", "out_ptr": "*fp32", "n": "i32", "BLOCK": "constexpr"}
GPU = DeviceProperties(
    type="cuda", index=0, multi_processor_count=132, cc=90, major=9, regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048, max_threads_per_block=1024, warp_size=32,
)  # fmt: skip
config.bundle_triton_into_fx_graph_cache = True
config.use_static_triton_launcher = True


def written() -> bytes:
    """Compile the kernel and return the bytes of an entry that holds it, scrubbed as before it is stored."""
    path = Path(cache_dir(), "do", "cdoubled.py")
    path.parent.mkdir(parents=True)
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("cdoubled", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["cdoubled"] = module
    spec.loader.exec_module(module)
    meta = {"signature": SIGNATURE, "constants": {"BLOCK": 64}, "configs": [{}], "device": GPU}
    configs = [Config({"BLOCK": 64}, num_warps=2), Config({"BLOCK": 64}, num_warps=4)]
    best = AutotuneCache.create({}, str(path), hash_configs(configs))
    tuner = CachingAutotuner(
        module.doubled, meta, configs, best.save, [], True, HeuristicType.POINTWISE,
        inductor_meta={"kernel_name": "doubled"}, filename=str(path),
    )  # fmt: skip
    binary = triton.compile(ASTSource(module.doubled, SIGNATURE, {"BLOCK": 64}), target=GPUTarget("cuda", 90, 32))
    TritonBundler.begin_compile()
    TritonBundler.put(triton_hash_to_path_key(binary.hash), 0)
    kernel = StaticTritonCompileResult.can_statically_launch(
        binary, tuner.inductor_meta, tuner.triton_meta, tuner.heuristic_type
    )
    assert kernel is not None, "torch would not launch it statically"
    tuner.compile_results = [
        StaticTritonCompileResult(
            kernel, tuner.configs[0], {**meta, "device": 0, "device_type": "cuda"}, tuner.inductor_meta
        )
    ]
    TritonBundler.put_static_autotuner(CompiledTritonKernels.key(SOURCE), tuner)
    bundle, _ = TritonBundler.collect()
    scrub(SimpleNamespace(compiled_fw=SimpleNamespace(result=SimpleNamespace(_triton_bundle=bundle))))
    return pickle.dumps(bundle)


def read(data: bytes) -> dict:
    """Have torch put the kernel where it looks for it, as it does with an entry of its cache; return what is there."""
    found = TritonBundler.read_and_emit(pickle.loads(data))
    future = CompiledTritonKernels.get(SOURCE)
    assert isinstance(future, StaticAutotunerFuture), future
    tuner = future.static_autotuner
    (result,) = tuner.compile_results
    binary = Path(result.kernel.cubin_path)
    tuner.save_cache_hook(result.config, 1)  # as after the timing of several configurations
    again, _, info = check_autotune_cache(tuner.configs, tuner.filename, {})
    return {
        "found_again": [len(again), info["autotune_cache_state"]],
        "kept_below_its_own_cache": len(list(Path(cache_dir()).rglob("*.best_config"))),
        "launched_statically": found.statically_launched_kernel_names,
        "below_its_own_cache": binary.is_relative_to(cache_dir()),
        "binary": hashlib.sha256(binary.read_bytes()).hexdigest(),
        "name": result.kernel.name,
        "arguments": result.kernel.arg_tys,
    }


file = Path(sys.argv[2])
if sys.argv[1] == "write":
    file.write_bytes(written())
    (made,) = Path(cache_dir()).rglob("doubled.cubin")
    print(json.dumps({"binary": hashlib.sha256(made.read_bytes()).hexdigest()}))
else:
    print(json.dumps(read(file.read_bytes())))
