"""Makes the list of torch's settings that a trainer may choose, from the configuration of the torch that is installed.

    python tools/settings_table.py [--check]

Writes `proto/compile_torch/settings_MAJOR_MINOR.json`, or with `--check` says whether that is another one.
By their types, flags, numbers and choices among a few words may be chosen, less what is named below: what names
places or programs, writes files, starts processes, calls functions by name, or computes with real numbers while a graph
is compiled. Text may be chosen only where the words are listed here. Whoever runs it for another torch reads the
difference to the list of the torch before, line by line, and commits both.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from compile_torch.setting_rules import Rule, Which, configuration, rule_by_type

FOLDER = Path(__file__).parents[1] / "proto" / "compile_torch"

DENIED_PARTS = (
    "aot_inductor. aot_inductor_mode. aten_distributed_optimizations. autoheuristic_collect. autoheuristic_use. cuda. "
    "cutlass. halide. lookup_table. pallas. rocm. test_configs. trace. xpu."
).split()
"""Parts of the configuration for other purposes, other toolchains, and tests."""

DENIED_WORDS = frozenset(
    "dir path cxx compiler cmd command log file output url hook hooks callback custom debug dump upload profile "
    "profiler profiling remote package presets factory class logpath cutlass home root library spec temps args "
    "visualize objgraph proton tables table bisect runner autoheuristic numeric crossref real sleep tlparse regex "
    "matmul TESTING testing CHECKING subproc worker quiesce benchmark collective collectives comm comms bucket "
    "progress verbose warnings lock nightly backend bw flex nvgemm history recording predispatch "
    "benchmarking flydsl mempool tlx".split()
)
"""Words in the names of settings that are about places, programs, files, processes, the network or real numbers."""

ALLOWED_IN_SPITE = frozenset({
    "autograd_cache_allow_custom_autograd_functions", "decompose_custom_triton_ops", "benchmark_epilogue_fusion",
    "benchmark_fusion", "benchmark_combo_kernel", "triton.native_matmul", "max_autotune_flex_search_space",
    "activation_memory_budget", "force_non_lazy_backward_lowering", "ban_recompute_materialized_backward",
    "max_epilogue_benchmarked_choices", "max_dist_from_bw", "bw_outputs_user_visible", "check_custom_op_aliasing",
    "force_fuse_int_mm_with_mul", "triton.enable_persistent_tma_matmul", "error_on_custom_op_aliasing",
})  # fmt: skip
"""Settings that such a word would catch, though they say how to compute and nothing else."""

DENIED_NAMES = frozenset({
    # They choose another compiler, or look at the machine in another way than the environment says.
    "cpp.vec_isa_ok", "cpp_wrapper_build_separate", "triton_disable_device_detection", "mixed_mm_choice",
    # They would keep the worker from torch's cache, or a graph from its key.
    "bypass_autograd_cache_key", "enable_autograd_cache", "force_autograd_cache", "strict_autograd_cache",
    "unsafe_skip_cache_dynamic_shape_guards", "fx_graph_cache", "force_disable_caches",
    # They compute with real tensors, or with the memory behind them.
    "runtime_estimations_mms_benchmark", "estimate_op_runtime", "fake_tensor_allow_unsafe_data_ptr_access",
    "fake_tensor_allow_meta", "is_non_builtin_to_include", "unsafe_treat_script_objects_as_zero_size",
    "run_jit_post_compile_hook", "autotune_multi_device", "save_args", "search_autotune_cache",
    "triton.autotune_with_sample_inputs", "triton.autotune_at_compile_time", "generate_intermediate_hooks",
})  # fmt: skip

REVIEWED: dict[str, Rule] = {
    "compile_threads": {"one of": [None, *range(65)]},
    "max_autotune_gemm_backends": {"words": ["ATEN", "TRITON", "CPP"]},
    "max_autotune_conv_backends": {"words": ["ATEN", "TRITON"]},
    "max_autotune_conv_bwd_input_backends": {"words": ["ATEN", "TRITON"]},
    "max_autotune_conv_bwd_weight_backends": {"words": ["ATEN", "TRITON"]},
    "layout_opt_default": {"one of": ["0", "1"]},
    "cpp.enable_floating_point_contract_flag": {"one of": ["off", "on", "fast"]},
    "activation_memory_budget_runtime_estimator": {"one of": ["flops"]},
    "activation_memory_budget_solver": {"one of": ["dp", "greedy"]},
    "backward_pass_autocast": {"one of": ["same_as_forward", "off"]},
    "saved_tensors_hooks_filtering_mode": {"one of": ["donated", "no_static", "all"]},
    "unsafe_marked_cacheable_functions": {
        "keys": [
            "torch.amp.autocast_mode._enter_autocast",
            "torch.amp.autocast_mode._exit_autocast",
            "torch.nn.attention._backend_from_string",
            "torch.nn.attention._sdpa_kernel",
        ]
    },
}
"""Settings whose type says too little, or too much."""


def made(which: Which) -> dict[str, Rule]:
    """Return the rules for one of the two configurations."""
    found = {}
    for name, entry in sorted(configuration(which).items()):
        if name in REVIEWED:
            found[name] = REVIEWED[name]
        elif (rule := rule_by_type(entry)) is not None and not _is_denied(name):
            found[name] = rule
    return found


def _is_denied(name: str) -> bool:
    if name in ALLOWED_IN_SPITE:
        return False
    words = set(name.replace(".", "_").split("_"))
    return (
        name.rpartition(".")[2].startswith("_")
        or name.startswith("_")
        or name in DENIED_NAMES
        or name.startswith(tuple(DENIED_PARTS))
        or bool(words & DENIED_WORDS)
    )


def main() -> int:
    """Write or check the list; return the exit code."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the list is another")
    options = parser.parse_args()
    major, minor = str(torch.__version__).split(".")[:2]
    tables: dict[str, Any] = {"inductor": made("inductor"), "functorch": made("functorch")}
    text = "{\n" + ",\n".join(f"{json.dumps(which)}: {_lines(table)}" for which, table in tables.items()) + "\n}\n"
    path = FOLDER / f"settings_{major}_{minor}.json"
    if options.check:
        return 0 if path.exists() and path.read_text() == text else 1
    path.write_text(text)
    sys.stdout.write(f"{path}: {', '.join(f'{len(table)} of {which}' for which, table in tables.items())}\n")
    return 0


def _lines(table: dict[str, Rule]) -> str:
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(rule)}" for name, rule in table.items()) + "\n}"


if __name__ == "__main__":
    sys.exit(main())
