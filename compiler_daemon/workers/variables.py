"""Which of the daemon's environment variables its workers get: what a compiler needs, and nothing that could be secret.

A shell's environment holds tokens of clouds, registries and services. A worker handles graphs of strangers, so it gets
the variables named here and those that the daemon's user adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

WORKER_VARIABLES = "COMPILER_DAEMON_WORKER_VARIABLES"
"""Names further variables, separated by commas; `*` stands for anything."""

_NAMES = frozenset(
    "PATH HOME USER LOGNAME SHELL TERM LANG LANGUAGE TZ PWD VIRTUAL_ENV "
    "CC CXX CPP LD AR AS NM STRIP CFLAGS CXXFLAGS CPPFLAGS LDFLAGS MAKEFLAGS "
    "CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH LIBRARY_PATH COMPILER_PATH GCC_EXEC_PREFIX SOURCE_DATE_EPOCH "
    "LD_LIBRARY_PATH LD_PRELOAD LD_BIND_NOW SYSROOT "
    "CUDA_HOME CUDA_PATH CUDA_ROOT CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_MODULE_LOADING CUDACXX "
    "NVIDIA_VISIBLE_DEVICES NVIDIA_DRIVER_CAPABILITIES "
    "ROCM_HOME ROCM_PATH HIP_PATH HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES "
    "OPENBLAS_CORETYPE OPENBLAS_L2_SIZE OPENBLAS_NUM_THREADS NIX_LD NIX_LD_LIBRARY_PATH "
    "TENSORIFY_PYTHON_SCALARS DISABLE_LLVM_OPT DISABLE_MMA_V3 DISABLE_MMA_V5 DISABLE_PTXAS_OPT "
    "ALLOW_LHS_TMEM_LAYOUT_CONVERSION HALIDE_REPRO FLYDSL_GPU_ARCH HSA_OVERRIDE_GFX_VERSION "
    "COMPILE_DAEMON_TEST_WEAKEN".split()
)
_BEGINNINGS = (
    "PYTORCH_",
    "LC_",
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "DNNL_",
    "ONEDNN_",
    "ATEN_",
    "MALLOC_",
    "PYTHON",
    "CONDA_PREFIX",
)


def kept_variables(base: Mapping[str, str], named: Iterable[str] = ()) -> dict[str, str]:
    """Return those variables of `base` that a worker gets: the known ones, and the ones that `named` matches."""
    patterns = tuple(named)
    return {
        name: value
        for name, value in base.items()
        if name in _NAMES or name.startswith(_BEGINNINGS) or any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def named_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what `COMPILER_DAEMON_WORKER_VARIABLES` names."""
    return tuple(name.strip() for name in environ.get(WORKER_VARIABLES, "").split(",") if name.strip())
