"""torch's global settings that a compile depends on: one table, read in the trainer and applied in the worker.

torch is imported inside the functions, because both ends share the table and neither may pay for it at import.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

from typing import Any

from compile_wire.errors import MalformedError
from compile_wire.graph_spec import Value


def read_state() -> dict[str, Value]:
    """Return the settings of this process, by name."""
    import torch

    state: dict[str, Value] = {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "autocast_cache": torch.is_autocast_cache_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "deterministic_warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill_uninitialized": torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn": [
            "l",
            torch._C._get_cudnn_enabled(),
            torch._C._get_cudnn_benchmark(),
            torch._C._get_cudnn_deterministic(),
        ],
        "mkldnn": torch._C._get_mkldnn_enabled(),
        "sdp": [
            "l",
            torch._C._get_flash_sdp_enabled(),
            torch._C._get_mem_efficient_sdp_enabled(),
            torch._C._get_math_sdp_enabled(),
            torch._C._get_cudnn_sdp_enabled(),
        ],
    }
    autocast: list[Value] = ["d"]
    for device in sorted(torch._C._autocast_supported_devices()):
        if torch.is_autocast_enabled(device):
            autocast += [device, str(torch.get_autocast_dtype(device)).removeprefix("torch.")]
    state["autocast"] = autocast
    return state


def apply_state(state: dict[str, Value]) -> None:
    """Make this process as `state` says; raise `MalformedError` where it cannot be.

    What was set is read back: a setting that this torch does not take is an error, never a silent difference.
    """
    import torch

    current = read_state()
    if set(state) != set(current):
        raise MalformedError(f"settings {sorted(set(state) ^ set(current))} are missing or unknown")
    if state["inference"]:
        raise MalformedError("graphs captured in inference mode are not compiled here")
    threads = _checked(state["threads"], int)
    if not 1 <= threads <= 4096:
        raise MalformedError(f"{threads} threads cannot be")
    torch.set_grad_enabled(_checked(state["grad"], bool))
    torch.set_default_dtype(dtype_of(state["default_dtype"]))
    torch.set_num_threads(threads)
    if state["matmul_precision"] != current["matmul_precision"]:
        if state["matmul_precision"] not in {"highest", "high", "medium"}:
            raise MalformedError("unknown precision of matrix products")
        torch.set_float32_matmul_precision(state["matmul_precision"])
    torch.set_autocast_cache_enabled(_checked(state["autocast_cache"], bool))
    torch.use_deterministic_algorithms(
        _checked(state["deterministic"], bool), warn_only=_checked(state["deterministic_warn_only"], bool)
    )
    torch.utils.deterministic.fill_uninitialized_memory = _checked(state["fill_uninitialized"], bool)
    enabled, benchmark, deterministic = _flags(state["cudnn"], 3)
    torch._C._set_cudnn_enabled(enabled)
    torch._C._set_cudnn_benchmark(benchmark)
    torch._C._set_cudnn_deterministic(deterministic)
    torch._C._set_mkldnn_enabled(_checked(state["mkldnn"], bool))
    flash, efficient, plain, cudnn = _flags(state["sdp"], 4)
    torch._C._set_sdp_use_flash(flash)
    torch._C._set_sdp_use_mem_efficient(efficient)
    torch._C._set_sdp_use_math(plain)
    torch._C._set_sdp_use_cudnn(cudnn)
    _apply_autocast(state["autocast"])
    if (now := read_state()) != state:
        raise MalformedError(f"settings {[name for name in state if now[name] != state[name]]} did not take")


def dtype_of(name: Value) -> Any:
    """Return the dtype of that name; raise `MalformedError` where torch has none."""
    import torch

    dtype = vars(torch).get(name) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype):
        raise MalformedError(f"torch has no dtype {name!r:.40}")
    return dtype


def _apply_autocast(value: Value) -> None:
    import torch

    if not isinstance(value, list) or value[:1] != ["d"]:
        raise MalformedError("autocast is a map of device to dtype")
    wanted = dict(zip(value[1::2], value[2::2], strict=True))
    supported = set(torch._C._autocast_supported_devices())
    if not set(wanted) <= supported:
        raise MalformedError(f"no autocast for {sorted(set(wanted) - supported)}")
    for device in supported:
        torch.set_autocast_enabled(device, device in wanted)
        if device in wanted:
            torch.set_autocast_dtype(device, dtype_of(wanted[device]))


def _flags(value: Value, count: int) -> list[bool]:
    if not isinstance(value, list) or value[:1] != ["l"] or len(value) != count + 1:
        raise MalformedError(f"expected {count} flags")
    return [_checked(flag, bool) for flag in value[1:]]


def _checked(value: Value, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise MalformedError(f"expected {kind.__name__}, not {value!r:.40}")
    return value
