"""torch's global switches, found by a program: every getter that has a setter, so that a new one is noticed.

A switch that is set differently may change what a compile makes, and torch's key holds only some of them. What is found
here is part of the daemon's key. Only what is known to have no part in a compile is left out, each with its reason.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import enum
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

from compile_wire.graph.spec import Value

WITHOUT_EFFECT: dict[str, str] = {
    "_get_autograd_fallback_mode": "decides about a warning",
    "_get_backcompat_broadcast_warn": "decides about a warning",
    "_get_backcompat_keepdim_warn": "decides about a warning",
    "_get_warnAlways": "decides about a warning",
    "_get_thread_name": "names a thread",
    "_get_qengine": "decides about quantized kernels while they run",
    "get_default_dtype": "is carried by a setting of its own",
    "_get_tracing_state": "belongs to TorchScript",
    "_get_graph_exec_group": "belongs to TorchScript",
    "_get_graph_executor_optimize": "belongs to TorchScript",
    "_is_multithreading_enabled": "decides about autograd's threads while a backward runs",
    "is_grad_enabled": "is in torch's key",
    "get_num_threads": "is carried by a setting of its own",
    "get_num_interop_threads": "decides about threads between operators",
    "_is_any_autocast_enabled": "follows from the devices' switches",
    "is_autocast_enabled": "is carried for each device",
    "is_autocast_cpu_enabled": "is carried for each device",
    "is_autocast_ipu_enabled": "is carried for each device",
    "is_autocast_xla_enabled": "is carried for each device",
    "get_autocast_cpu_dtype": "is carried for each device",
    "get_autocast_gpu_dtype": "is carried for each device",
    "get_autocast_ipu_dtype": "is carried for each device",
    "get_autocast_xla_dtype": "is carried for each device",
    "_get_torch_function_state": "is switched by dynamo while it traces",
    "_is_torch_function_enabled": "is switched by dynamo while it traces",
    "_is_torch_function_mode_enabled": "is read from the stack of modes",
    "is_inference_mode_enabled": "is carried by a setting of its own",
    "torch.backends.quantized.supported_engines": "lists what there is",
    "torch.backends.python_native.all_dsls": "lists what there is",
    "torch.backends.python_native.available_dsls": "lists what there is",
}
"""Switches that have no part in a compile, or that the key has by another name, with the reason."""

AT_START: dict[str, Value] = {
    "_get_blas_preferred_backend": "Cublas",
    "_get_cpu_allow_fp16_reduced_precision_reduction": False,
    "_get_cublas_allow_bf16_reduced_precision_reduction": ["l", True, True],
    "_get_cublas_allow_fp16_accumulation": False,
    "_get_cublas_allow_fp16_reduced_precision_reduction": ["l", True, True],
    "_get_cublas_allow_tf32": False,
    "_get_cublaslt_prefer_grouped_gemm": False,
    "_get_cudnn_allow_tf32": True,
    "_get_cudnn_benchmark": False,
    "_get_cudnn_depthwise_kernel": "auto",
    "_get_cudnn_deterministic": False,
    "_get_cudnn_enabled": True,
    "_get_cudnn_sdp_enabled": True,
    "_get_deterministic_algorithms": False,
    "_get_deterministic_fill_uninitialized_memory": True,
    "_get_dtensor_allow_implicit_replication": False,
    "_get_fa3_sdp_enabled": False,
    "_get_fa4_sdp_enabled": False,
    "_get_flash_sdp_enabled": True,
    "_get_float32_matmul_precision": "highest",
    "_get_linalg_preferred_backend": "Default",
    "_get_math_sdp_allow_fp16_bf16_reduction": False,
    "_get_math_sdp_enabled": True,
    "_get_mem_efficient_sdp_enabled": True,
    "_get_miopen_immediate": False,
    "_get_mkldnn_deterministic": False,
    "_get_mkldnn_enabled": True,
    "_get_native_aot_enabled": True,
    "_get_native_aot_unconditional_masked": False,
    "_get_nnpack_enabled": True,
    "_get_onednn_allow_tf32": None,
    "_get_overrideable_sdp_enabled": True,
    "_get_rocm_fa_preferred_backend": "Default",
    "_get_sdp_priority_order": ["l", 1, 2, 0, 3, 4],
    "_get_sm_carveout_experimental": None,
    "_is_fwd_grad_enabled": True,
    "_is_grad_layout_enforcement_enabled": True,
    "_is_view_replay_enabled": False,
    "_is_xnnpack_enabled": False,
    "is_anomaly_check_nan_enabled": True,
    "is_anomaly_enabled": False,
    "is_autocast_cache_enabled": True,
    "torch.backends.cudnn.benchmark_limit": 10,
    "torch.backends.cudnn.fp32_precision": "none",
    "torch.backends.cudnn.rnn.fp32_precision": "tf32",
    "torch.backends.fp32_precision": "none",
    "torch.backends.mkldnn.allow_tf32": None,
    "torch.backends.mkldnn.fp32_precision": "none",
    "flush_denormal": False,
}
"""What the switches are when torch starts up. One that is as here adds nothing to a key; one that is not known does."""

_GETTERS = ("_get_", "_is_", "is_", "get_")
_LONGEST = 200


def switches() -> dict[str, Value]:
    """Return what every switch says in this thread now, by name."""
    found: dict[str, Value] = {}
    for name, read in _readers().items():
        try:
            found[name] = _plain(read())
        except Exception:  # noqa: BLE001 - a switch of hardware that is not here says so in many ways
            found[name] = "unreadable"
    found["flush_denormal"] = _flushes_denormals()
    return found


def changed_switches() -> list[Value]:
    """Return [name, value] of each switch that is not as torch starts up, or not known, in the order of their names."""
    now = switches()
    missing = object()
    return [["l", name, now[name]] for name in sorted(now) if now[name] != AT_START.get(name, missing)]


def unknown_switches() -> list[str]:
    """Return the switches of this torch that nobody has looked at yet."""
    return sorted(set(switches()) - set(AT_START) - set(WITHOUT_EFFECT))


@functools.cache
def _readers() -> dict[str, Callable[[], Any]]:
    import torch

    readers = dict(_paired(torch._C))
    for module_name, module in sorted(sys.modules.items()):
        if module_name == "torch.backends" or module_name.startswith("torch.backends."):
            for name in _properties(type(module)):
                readers[f"{module_name}.{name}"] = functools.partial(getattr, module, name)
    # These say what the paired functions say.
    for name in ("enabled", "deterministic", "benchmark", "allow_tf32", "immediate", "depthwise_kernel", "engine"):
        for backend in ("cudnn", "miopen", "quantized", "xnnpack"):
            readers.pop(f"torch.backends.{backend}.{name}", None)
    for name in ("enabled", "deterministic"):
        readers.pop(f"torch.backends.mkldnn.{name}", None)
    return {name: read for name, read in readers.items() if name not in WITHOUT_EFFECT}


def _paired(home: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the getters without arguments that have a setter, in `torch._C`."""
    names = set(dir(home))
    for name in sorted(names):
        prefix = next((prefix for prefix in _GETTERS if name.startswith(prefix)), None)
        read = getattr(home, name)
        if prefix is None or not callable(read) or isinstance(read, type):
            continue
        stem = name.removeprefix(prefix)
        bare = stem.removesuffix("_enabled")
        setters = {f"{start}{end}" for start in ("_set_", "set_") for end in (stem, bare)}
        setters |= {f"_set_sdp_use_{bare.removesuffix('_sdp').removesuffix('_sdp_enabled')}"}
        if bare.endswith("_sdp") or setters & names:
            try:
                read()
            except TypeError:  # it takes an argument
                continue
            except Exception:  # noqa: BLE001, S110 - hardware that is not here
                pass
            yield name, read


def _properties(kind: type[Any]) -> list[str]:
    """Return the settable attributes of one of torch.backends' modules, which are objects of a class each."""
    return sorted(
        {
            name
            for base in kind.__mro__
            for name, held in vars(base).items()
            if not name.startswith("__") and hasattr(type(held), "__get__") and hasattr(type(held), "__set__")
        }
    )


def _flushes_denormals() -> bool:
    """Whether this thread's processor takes the smallest numbers for zero; torch sets that and does not tell."""
    smallest = 5e-324
    return smallest * (smallest / smallest if smallest else 1.0) == 0.0


def _plain(value: Any) -> Value:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (list, tuple)):
        return ["l", *(_plain(item) for item in value)]
    name = getattr(value, "name", None)  # pybind's enumerations
    return (name if isinstance(name, str) else str(value))[:_LONGEST]
