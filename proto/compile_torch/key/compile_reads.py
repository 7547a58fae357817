"""What torch reads while it compiles and has in no key: environment variables, and configuration of its other parts.

Which ones there are is found by a program in torch's sources (`tools/compile_reads.py`); each is sorted here by hand. A
test compares the two for the torch that runs, so that a new version's new variable is noticed.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import os
import sys
from typing import Any

from compile_torch.key.triton_reads import TRITON_VARIABLES
from compile_wire.graph.spec import Value

VARIABLES = (
    frozenset(
        "ATEN_CPU_CAPABILITY TENSORIFY_PYTHON_SCALARS PYTORCH_JIT PYTORCH_GEN_PATTERNS "
        "TORCHINDUCTOR_DEBUG_COMPILE TORCHINDUCTOR_DEBUG_SYMBOL "
        "TORCHINDUCTOR_DISABLE_MULTI_KERNEL_CACHE "
        "TORCH_CUDA_ARCH_LIST PYTORCH_ROCM_ARCH TORCH_XPU_ARCH_LIST HALIDE_REPRO "
        "FLYDSL_GPU_ARCH HSA_OVERRIDE_GFX_VERSION TORCHINDUCTOR_LITE_MODE TORCHINDUCTOR_TLX_MODE "
        # What a C++ compiler reads, and puts into what it builds.
        "CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH LIBRARY_PATH COMPILER_PATH GCC_EXEC_PREFIX SOURCE_DATE_EPOCH "
        "CXXFLAGS CFLAGS LDFLAGS "
        # What a template of torch's reads (2.14).
        "TORCHINDUCTOR_NVGEMM_PREFETCH".split()
    )
    | TRITON_VARIABLES
)
"""Variables that decide what is made of a graph. They are in the key by name and value where they are set."""

VARIABLES_WITHOUT_EFFECT: dict[str, str] = {
    **dict.fromkeys(
        "CC CXX CUDACXX CUDA_HOME CUDA_PATH CUDA_INC_PATH CONDA_EXE CONDA_PREFIX OMP_PREFIX ROCM_HOME ROCM_PATH "
        "HALIDE_INCLUDE HALIDE_LIB LEVEL_ZERO_V1_SDK_PATH ONEAPI_ROOT PATH LD_LIBRARY_PATH WINDOWS_CUDA_HOME "
        "TORCH_INDUCTOR_INSTALL_GXX ProgramFiles ProgramFiles(x86) PROGRAMFILES SYSTEMROOT VCToolsInstallDir "
        "VSCMD_ARG_TGT_ARCH TORCH_CUSTOM_PYTHONPATH PYTORCH_NVCC TORCH_NO_COMPILER_WRAPPER "
        "TORCH_DONT_CHECK_COMPILER_ABI TORCH_EXTENSION_SKIP_NVCC_GEN_DEPENDENCIES DISTUTILS_USE_SDK".split(),
        "says where a program lies, whose version is in the environment",
    ),
    **dict.fromkeys(
        "TORCHINDUCTOR_CACHE_DIR TRITON_CACHE_DIR FLYDSL_RUNTIME_CACHE_DIR TORCH_EXTENSIONS_DIR "
        "TORCH_COMPILE_DEBUG_DIR "
        "TORCHINDUCTOR_AUTOGRAD_REMOTE_CACHE TORCHINDUCTOR_REDIS_HOST TORCHINDUCTOR_REDIS_PORT "
        "TORCHINDUCTOR_REDIS_URL TORCHINDUCTOR_FX_GRAPH_CACHE TORCHINDUCTOR_FX_GRAPH_CACHE_DEFAULT".split(),
        "says where results are kept",
    ),
    **dict.fromkeys(
        "BENCHMARK_USE_DEV_SHM CI CUDA_MODULE_LOADING CUDNN_LIBRARY FX_GRAPH_SHOW_DEVICE FX_GRAPH_SHOW_META "
        "FX_GRAPH_SHOW_STRIDE INDUCTOR_TEST_DISABLE_FRESH_CACHE INDUCTOR_WRITE_SCHEDULER_GRAPH MAST_HPC_JOB_NAME "
        "PIP_DISABLE_PIP_VERSION_CHECK PYTORCH_KEEP_TMPDIR PYTORCH_MATCHER_LOGLEVEL ROLE_RANK TORCH_COMPILE_DEBUG "
        "TORCH_COMPILE_GRAPH_FORMAT TORCHDYNAMO_DEBUG_FUNCTION TORCHDYNAMO_EXTENDED_ADVICE TORCHDYNAMO_PRINT_MISSING "
        "TORCHINDUCTOR_CONV_LOGGING_FILE TORCHINDUCTOR_DUMP_LAUNCH_PARAMS TORCHINDUCTOR_DUMP_LAUNCH_TENSORS "
        "TORCHINDUCTOR_FLEX_ATTENTION_LOGGING_FILE TORCHINDUCTOR_KERNELS_TO_DUMP TORCHINDUCTOR_MM_LOGGING_FILE "
        "TORCHINDUCTOR_PATTERN_MATCH_DEBUG TORCHINDUCTOR_WINDOWS_TESTS TORCHINDUCTOR_AUTOTUNE_NUM_CHOICES_DISPLAYED "
        "_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR TVM_SCHEDULER XLA_HLO_DEBUG "
        "_SPLITTER_MERGE_OVERLAPPING_FUSIONS".split(),
        "belongs to logs, tests or other back ends",
    ),
    **dict.fromkeys(
        "TORCHDYNAMO_DISABLE TORCHINDUCTOR_COMPILE_THREADS TORCHINDUCTOR_WORKER_START MAX_JOBS TORCH_TNT_IN_USE "
        "TORCH_WARM_POOL TORCH_COMPILE_WORKER_MODE CUDA_VISIBLE_DEVICES".split(),
        "decides who compiles, and when",
    ),
    **dict.fromkeys(
        "TORCHINDUCTOR_AUTOHEURISTIC_COLLECT TORCHINDUCTOR_AUTOHEURISTIC_USE TORCHINDUCTOR_PROLOGUE_FUSION "
        "TORCHINDUCTOR_NVGEMM_MAX_PROFILING_CONFIGS TORCHINDUCTOR_USE_STATIC_CUDA_LAUNCHER "
        "TORCHINDUCTOR_VEC_ISA_OK".split(),
        "becomes a setting, which is in torch's key",
    ),
    # scikit-learn sets it in every process that imports it.
    "KMP_DUPLICATE_LIB_OK": "is written, on Windows, and never read",
}
"""Variables that torch's compiler reads, too, and that are in no key, with the reason."""

DYNAMO_SETTINGS = frozenset(
    "_custom_ops_profile allow_empty_graphs automatic_dynamic_exclusion_guard capture_scalar_outputs "
    "enable_compiler_collectives fake_tensor_cache_crosscheck_enabled fake_tensor_cache_enabled "
    "force_compile_during_fx_trace leaf_function_validate_outputs record_runtime_overhead "
    "use_lazy_graph_module".split()
)
"""Settings of dynamo that are read after dynamo has handed its graph over."""

DYNAMO_SETTINGS_WITHOUT_EFFECT: dict[str, str] = {
    "caching_precompile": "decides where results are kept",
    "strict_precompile": "decides where results are kept",
    "debug_dir_root": "says where logs are kept",
    "suppress_errors": "decides what happens after an error",
}

SHAPE_SETTINGS_WITHOUT_EFFECT = frozenset(
    "translation_validation translation_validation_timeout translation_validation_no_bisect "
    "check_shape_env_recorded_events extended_debug_guard_added extended_debug_create_symbol extended_debug_cpp "
    "extended_debug_current_loc print_specializations validate_shape_env_version_key enrich_profiler_metadata".split()
)
"""Settings of symbolic shapes that check and log. All others are in the key."""


def variables_set() -> list[Value]:
    """Return [name, value] of each variable that is set and decides what is made of a graph.

    Also that Python leaves assertions out (`-O`): torch decides by some of them, and fails, or goes on, without.
    """
    rows: list[Value] = [["l", name, os.environ[name]] for name in sorted(VARIABLES & set(os.environ))]
    return [*rows, ["l", "python -O", sys.flags.optimize]] if sys.flags.optimize else rows


def settings_changed() -> list[Value]:
    """Return [name, value] of dynamo's and symbolic shapes' settings that a compile reads and that are not torch's."""
    import torch._dynamo.config as dynamo
    import torch.fx.experimental._config as shapes

    wanted = set(shapes._config) - SHAPE_SETTINGS_WITHOUT_EFFECT
    return [
        *(["l", f"dynamo.{name}", text] for name, text in _changed(dynamo, DYNAMO_SETTINGS)),
        *(["l", f"shapes.{name}", text] for name, text in _changed(shapes, wanted)),
    ]


def _changed(config: Any, names: frozenset[str] | set[str]) -> list[tuple[str, str]]:
    return [
        (name, repr(value)[:200])
        for name in sorted(names & set(config._config))
        if (value := getattr(config, name)) != config._config[name].default
    ]
