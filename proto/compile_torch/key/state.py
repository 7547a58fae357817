"""torch's global settings that a compile depends on: one table, read in the trainer and applied in the worker.

torch is imported inside the functions, because both ends share the table and neither may pay for it at import.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

from compile_torch.key.compile_reads import DYNAMO_SETTINGS
from compile_wire.errors import MalformedError
from compile_wire.graph.spec import Value

_AUTOCAST_AT_START = {
    "cpu": "bfloat16",
    "cuda": "float16",
    "hpu": "bfloat16",
    "ipu": "float16",
    "maia": "bfloat16",
    "mps": "float16",
    "mtia": "float16",
    "privateuseone": "float16",
    "xla": "bfloat16",
    "xpu": "float16",
}
"""The dtype of each device's autocast, as torch starts up."""
_FP32_OPERATIONS = (
    *(("generic", "all"), ("cuda", "all"), ("mkldnn", "all")),
    *(("cuda", "matmul"), ("cuda", "conv"), ("cuda", "rnn")),
    *(("mkldnn", "matmul"), ("mkldnn", "conv"), ("mkldnn", "rnn")),
)
"""Whose precision in float32 torch keeps by backend and operation; what they fall back to comes first."""
_FP32_PRECISIONS = frozenset({"none", "ieee", "tf32", "bf16"})
_MIXED = "mixed"
"""Of matrix products or convolutions as a whole, where they were chosen by operation: torch raises an error then."""
_MAX_CONSTANTS = 4096
_FLOAT_SYMBOL = re.compile(r"zf[0-9]{1,9}")


def read_state() -> dict[str, Value]:
    """Return the settings of this process, by name."""
    import torch

    state: dict[str, Value] = {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "matmul_precision": _as_a_whole(torch.get_float32_matmul_precision),
        "cudnn_tf32": _as_a_whole(torch._C._get_cudnn_allow_tf32),
        "fp32_precision": ["l", *_fp32_precisions()],
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
        dtype = str(torch.get_autocast_dtype(device)).removeprefix("torch.")
        # The dtype also where it is off: a region in the graph that names none takes it.
        autocast += [device, ["l", torch.is_autocast_enabled(device), dtype]]
    state["autocast"] = autocast
    state["dynamo"] = _dynamo_settings()
    state["constants"] = ["l", *numbers_made_constants()]
    return state


def _as_a_whole(ask: Callable[[], Value]) -> Value:
    try:
        return ask()
    except RuntimeError:
        return _MIXED


def _fp32_precisions() -> list[str]:
    import torch

    return [torch._C._get_fp32_precision_getter(*operation) for operation in _FP32_OPERATIONS]


def numbers_made_constants() -> list[str]:
    """Return the symbolic floats, by name, that torch has found it must make constants of.

    torch finds that in the middle of a compile, gives the graph up, and traces the program once more with this list.
    It stays until the next restart of another kind: a later graph of the process is compiled with it, too.
    """
    dynamo = sys.modules.get("torch._dynamo.symbolic_convert")
    return sorted(dynamo.TensorifyState.force_specializations) if dynamo else []


def autocast_off() -> list[Value]:
    """Return [device, dtype] where autocast is off and would not take the dtype that torch starts up with."""
    import torch

    return [
        ["l", device, dtype]
        for device in sorted(torch._C._autocast_supported_devices())
        if not torch.is_autocast_enabled(device)
        and (dtype := str(torch.get_autocast_dtype(device)).removeprefix("torch.")) != _AUTOCAST_AT_START.get(device)
    ]


def dynamo_patch(state: dict[str, Value]) -> dict[str, bool]:
    """Return what to change of dynamo's configuration: flags alone, of those that a compile reads."""
    value = state["dynamo"]
    if not isinstance(value, list) or value[:1] != ["d"] or len(value) % 2 != 1:
        raise MalformedError("dynamo's settings are a map of name to flag")
    patch = dict(zip(value[1::2], value[2::2], strict=True))
    if not set(patch) <= DYNAMO_SETTINGS or not all(isinstance(flag, bool) for flag in patch.values()):
        raise MalformedError(f"dynamo's settings {sorted(map(str, patch))!r:.80} may not be chosen from outside")
    return patch


def _dynamo_settings() -> list[Value]:
    """Return the flags that are not as torch has them; what is no flag is in the key alone, and no worker takes it."""
    import torch._dynamo.config as dynamo

    found: list[Value] = ["d"]
    for name in sorted(DYNAMO_SETTINGS & set(dynamo._config)):
        value = getattr(dynamo, name)
        if isinstance(value, bool) and value != dynamo._config[name].default:
            found += [name, value]
    return found


def apply_state(state: dict[str, Value]) -> None:
    """Make this process as `state` says; raise `MalformedError` where it cannot be.

    What was set is read back: a setting that this torch does not take is an error, never a silent difference.
    """
    import torch

    current = read_state()
    # Graphs that were kept before there were such settings are compiled again, too.
    state = {"constants": ["l"], "fp32_precision": ["l"], "cudnn_tf32": current["cudnn_tf32"], **state}
    dynamo_patch(state)
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
    _apply_precisions_as_a_whole(state["matmul_precision"], state["cudnn_tf32"])
    state["fp32_precision"] = _apply_precisions(state["fp32_precision"])
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
    _apply_constants(state["constants"])
    now = read_state() | {"dynamo": state["dynamo"]}  # in force for the length of the compile alone
    if now != state:
        raise MalformedError(f"settings {[name for name in state if now[name] != state[name]]} did not take")


def dtype_of(name: Value) -> Any:
    """Return the dtype of that name; raise `MalformedError` where torch has none."""
    import torch

    dtype = vars(torch).get(name) if isinstance(name, str) else None
    if not isinstance(dtype, torch.dtype):
        raise MalformedError(f"torch has no dtype {name!r:.40}")
    return dtype


def _apply_precisions_as_a_whole(products: Value, convolutions: Value) -> None:
    """Choose how float32 is computed in matrix products, and in cuDNN. What that sets by operation is not taken back by
    setting what was there before, so that `_apply_precisions` comes after it.
    """
    import torch

    if not isinstance(products, str) or products not in {"highest", "high", "medium", _MIXED}:
        raise MalformedError("unknown precision of matrix products")
    if products not in {_as_a_whole(torch.get_float32_matmul_precision), _MIXED}:
        torch.set_float32_matmul_precision(products)
    if convolutions != _MIXED and convolutions != _as_a_whole(torch._C._get_cudnn_allow_tf32):
        torch._C._set_cudnn_allow_tf32(_checked(convolutions, bool))


def _apply_precisions(each: Value) -> Value:
    """Choose how float32 is computed, by operation; return that, or what there is where nothing was chosen."""
    import torch

    if each == ["l"]:
        return ["l", *_fp32_precisions()]
    if not isinstance(each, list) or each[:1] != ["l"] or len(each) != len(_FP32_OPERATIONS) + 1:
        raise MalformedError("the precisions of float32 are a list by operation")
    for operation, wanted in zip(_FP32_OPERATIONS, each[1:], strict=True):
        if not isinstance(wanted, str) or wanted not in _FP32_PRECISIONS:
            raise MalformedError(f"float32 has no precision {wanted!r:.40}")
        if torch._C._get_fp32_precision_getter(*operation) != wanted:
            torch._C._set_fp32_precision_setter(*operation, wanted)
    return each


def _apply_autocast(value: Value) -> None:
    import torch

    if not isinstance(value, list) or value[:1] != ["d"]:
        raise MalformedError("autocast is a map of device to dtype")
    wanted = dict(zip(value[1::2], value[2::2], strict=True))
    if set(wanted) != set(torch._C._autocast_supported_devices()):
        raise MalformedError(f"autocast is for other devices here than {sorted(map(str, wanted))!r:.120}")
    for device, said in wanted.items():
        if not isinstance(said, list) or len(said) != 3 or said[0] != "l":
            raise MalformedError("autocast of a device is a flag and a dtype")
        torch.set_autocast_enabled(device, _checked(said[1], bool))
        torch.set_autocast_dtype(device, dtype_of(said[2]))


def _apply_constants(value: Value) -> None:
    from torch._dynamo.symbolic_convert import TensorifyState

    if not isinstance(value, list) or value[:1] != ["l"] or len(value) > _MAX_CONSTANTS:
        raise MalformedError("the numbers that are constants are a list of symbols")
    names = value[1:]
    if not all(isinstance(name, str) and _FLOAT_SYMBOL.fullmatch(name) for name in names):
        raise MalformedError("a number that is a constant is a symbol of a float")
    TensorifyState.clear()
    for name in names:
        TensorifyState.specialize(name)


def _flags(value: Value, count: int) -> list[bool]:
    if not isinstance(value, list) or value[:1] != ["l"] or len(value) != count + 1:
        raise MalformedError(f"expected {count} flags")
    return [_checked(flag, bool) for flag in value[1:]]


def _checked(value: Value, kind: type[Any]) -> Any:
    if type(value) is not kind:
        raise MalformedError(f"expected {kind.__name__}, not {value!r:.40}")
    return value
