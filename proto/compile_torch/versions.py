"""What differs between the versions of torch that are supported: one table, and the signatures that must hold.

| torch       | graph that the key is of          | left out of torch's key                                        |
|-------------|-----------------------------------|----------------------------------------------------------------|
| 2.11, 2.12  | after inductor's pre-grad passes  | as below, and autocast dtype, default dtype, thread count      |
| 2.13 - 2.15 | as dynamo made it                 | what `key_parts` lists                                         |

Run here: 2.13, and of 2.14 and 2.15 what docs/limits.md lists. The others are written from their sources (2.12: taken
to be like its neighbours). All are held by the signatures below: where one differs, the client stays off and says so.
"""

from __future__ import annotations

import inspect
import sysconfig
from dataclasses import dataclass
from typing import Any

OLDEST, NEWEST = (2, 11), (2, 15)


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchVersion:
    """Says in what one version of torch differs from the others."""

    key_before_passes: bool
    """The key is computed before the graph is changed, so that the graph can be captured when the key is known."""
    key_complete: bool
    """torch's key holds all settings; where not, ours adds those that it leaves out."""


def torch_version() -> TorchVersion | None:
    """Return what is known of this torch; None where it is too old or too new to be known."""
    import torch

    parts = str(torch.__version__).split(".")[:2]
    try:
        version = (int(parts[0]), int(parts[1]))
    except (ValueError, IndexError):
        return None
    if not OLDEST <= version <= NEWEST:
        return None
    modern = version >= (2, 13)
    return TorchVersion(key_before_passes=modern, key_complete=modern)


def has_no_global_lock() -> bool:
    """Whether this Python was built to run threads without the global interpreter lock."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def waits_for_backward() -> bool:
    """Whether this torch decides in one place, at the first backward, which saved tensors' memory it may reuse."""
    from torch._functorch._aot_autograd import runtime_wrappers

    return hasattr(runtime_wrappers, "_AutogradBackwardCompiler")


def unsupported_reasons(*, compiles: bool = True) -> list[str]:
    """Return in words what of torch is not as it should be; empty means that every touched function is as known.

    Without `compiles` what inductor compiles with is left out, and not imported: `unsupported_compile_reasons` has it.
    """
    import torch

    if has_no_global_lock():
        return ["this Python is free-threaded, and nothing of this was ever run with such a one: use one with its lock"]
    if torch_version() is None:
        span = f"{OLDEST[0]}.{OLDEST[1]} to {NEWEST[0]}.{NEWEST[1]}"
        return [f"torch {torch.__version__} is not one of the versions known ({span})"]
    try:
        expected = _expected()
    except (ImportError, AttributeError) as error:
        return [f"torch has changed: {error}"]
    return [*differing_signatures(expected), *(unsupported_compile_reasons() if compiles else [])]


def unsupported_compile_reasons() -> list[str]:
    """Likewise for what inductor compiles with."""
    try:
        from torch._inductor import compile_fx

        expected = [
            ("compile_fx", compile_fx.compile_fx, ["model_", "example_inputs_"]),
            ("fx_codegen_and_compile", compile_fx.fx_codegen_and_compile, ["gm", "example_inputs"]),
        ]
    except (ImportError, AttributeError) as error:
        return [f"torch has changed: {error}"]
    return differing_signatures(expected)


def differing_signatures(expected: list[tuple[str, Any, list[str]]]) -> list[str]:
    """Return in words which functions take other parameters than these first ones."""
    found = []
    for name, function, parameters in expected:
        actual = list(inspect.signature(function).parameters)
        known = [name if known == _ANY else known for name, known in zip(actual, parameters, strict=False)]
        if actual[: len(parameters)] != known or len(actual) < len(parameters):
            found.append(f"{name} takes ({', '.join(actual)}), expected ({', '.join(parameters)})")
    return found


def unsupported_build_reasons() -> list[str]:
    """Likewise for what a worker needs to build kernels together; where it is not as known, torch builds them."""
    try:
        from torch._inductor import codecache
        from torch._inductor.async_compile import AsyncCompile, get_compile_threads
        from torch._inductor.cpp_builder import CppBuilder

        expected = [
            ("AsyncCompile.cpp_pybinding", AsyncCompile.cpp_pybinding, ["self", "argtypes", "source_code"]),
            ("AsyncCompile.wait", AsyncCompile.wait, ["self", "scope"]),
            ("get_compile_threads", get_compile_threads, []),
            ("codecache._worker_compile_cpp", codecache._worker_compile_cpp, ["lock_path", "cpp_builders"]),
            ("CppBuilder.get_command_line", CppBuilder.get_command_line, ["self"]),
            ("CppBuilder.get_target_file_path", CppBuilder.get_target_file_path, ["self"]),
        ]
        found = differing_signatures(expected)
        takes = inspect.signature(codecache.CppPythonBindingsCodeCache.load_pybinding_async).parameters
    except (ImportError, AttributeError) as error:
        return [f"torch has changed: {error}"]
    if list(takes)[:2] != ["argtypes", "main_code"] or "submit_fn" not in takes:
        found.append(f"load_pybinding_async takes ({', '.join(takes)})")
    return found


def unsupported_winner_reasons() -> list[str]:
    """Likewise for inductor's cache of what it has timed; where it is not as known, it is left alone."""
    try:
        from torch._inductor.runtime.autotune_cache import AutotuneCache

        fields = inspect.get_annotations(AutotuneCache)
        expected = [
            ("AutotuneCache._read", AutotuneCache._read, ["self"]),
            ("AutotuneCache.save", AutotuneCache.save, ["self", "config"]),
        ]
        found = differing_signatures(expected)
    except (ImportError, AttributeError) as error:
        return [f"torch has changed: {error}"]
    return found + [f"AutotuneCache has no {name}" for name in ("configs_hash", "local_cache") if name not in fields]


_ANY = "*"
"""A parameter that has another name in each version, and is always given by its place."""


def _expected() -> list[tuple[str, Any, list[str]]]:
    """Return every function that is replaced or called with arguments of ours."""
    import torch
    from torch._dynamo.symbolic_convert import TensorifyState
    from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache, autograd_cache_key
    from torch._higher_order_ops.triton_kernel_wrap import KernelSideTable
    from torch._inductor import codecache, cpu_vec_isa
    from torch._inductor.cpp_builder import CppBuilder
    from torch._library.custom_ops import OPDEFS
    from torch._library.simple_registry import SimpleLibraryRegistry

    backward: list[tuple[str, Any, list[str]]] = []
    if waits_for_backward():
        from torch._functorch._aot_autograd import graph_compile, runtime_wrappers

        compiler = runtime_wrappers._AutogradBackwardCompiler
        backward = [
            ("get_or_compile", compiler.get_or_compile, ["self", "saved_tensors_use_once"]),
            ("_aot_stage2b_bw_compile", graph_compile._aot_stage2b_bw_compile, ["bw_module"]),
        ]
    # What a user's own operators do is read out of these; where they are not there, another's result could be served.
    _ = OPDEFS.get, torch._C._dispatch_dump, TensorifyState.force_specializations
    return [
        *backward,
        ("autograd_cache_key", inspect.unwrap(autograd_cache_key), [_ANY, "example_inputs", "config"]),
        (
            "AOTAutogradCache._lookup",
            AOTAutogradCache._lookup,
            ["key", "local", "remote", "args", "cache_info", "aot_config"],
        ),
        ("AOTAutogradCache.save", AOTAutogradCache.save, ["key", "entry", "remote"]),
        ("AOTAutogradCache._write_to_local_cache", AOTAutogradCache._write_to_local_cache, ["key", "content"]),
        ("AOTAutogradCache._filter_backed_symints", AOTAutogradCache._filter_backed_symints, ["inputs"]),
        ("codecache.write", codecache.write, ["content", "extension", "extra"]),
        ("codecache._precompile_header", codecache._precompile_header, ["header", "hashable_cmd_line"]),
        ("VecISA.check_build", cpu_vec_isa.VecISA.check_build, ["self", "code"]),
        ("TensorifyState.specialize", TensorifyState.specialize, ["index"]),
        ("TensorifyState.clear", TensorifyState.clear, []),
        ("SimpleLibraryRegistry.find", SimpleLibraryRegistry.find, ["self", "qualname"]),
        ("KernelSideTable.get_kernel", KernelSideTable.get_kernel, ["self", "idx"]),
        # Only counted, with whatever arguments it takes; others may have wrapped it, too.
        ("CppBuilder.build", CppBuilder.build, []),
    ]
