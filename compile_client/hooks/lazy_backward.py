"""A backward that was compiled together with its forward behaves as torch's, which is compiled at the first backward.

The daemon's entries hold both. torch by itself waits: whether the first backward keeps the graph
(`retain_graph`, `create_graph`) decides whether memory of saved tensors may be reused, and a backward that cannot be
compiled fails where the backward is. Both are kept here:

- Where the first backward keeps the graph, the saved tensors whose memory the compiled code would reuse are copied
  before it runs with the graph kept, now and later. Where it does not, a later one that does fails, as torch's would.
- Where a backward cannot be compiled ahead, torch goes on as it does by itself.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import torch

from compile_torch.patches import Patches
from compile_torch.versions import waits_for_backward


def install_lazy_backward(patches: Patches) -> None:
    """Replace the two functions of torch's that this takes; nothing where torch has them in another form."""
    if not waits_for_backward():
        return
    from torch._functorch._aot_autograd import graph_compile, runtime_wrappers

    patches.replace(runtime_wrappers._AutogradBackwardCompiler, "get_or_compile", _kept_as_by_torch)
    patches.replace(graph_compile, "_aot_stage2b_bw_compile", _failing_as_by_torch)


def _kept_as_by_torch(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get_or_compile(compiler: Any, *, saved_tensors_use_once: bool) -> Any:
        first = not getattr(compiler, "_has_run_before", False)
        ahead = compiler.compiled_bw is not None
        compiler._has_run_before = True
        metadata = compiler.fw_metadata
        # With symbolic sizes saved for it torch compiles the backward ahead, too, and then refuses.
        if first and ahead and not saved_tensors_use_once and not metadata.num_symints_saved_for_bw:
            donated: list[int] = list(metadata.bw_donated_idxs or ())
            if donated:
                compiler.compiled_bw = _copying(compiler.compiled_bw, donated)
            metadata.bw_donated_idxs = []
        return original(compiler, saved_tensors_use_once=saved_tensors_use_once)

    return get_or_compile


def _copying(compiled: Callable[..., Any], donated: list[int]) -> Callable[..., Any]:
    """Return the compiled backward for graphs that may be kept: what it would write into is copied then."""

    @functools.wraps(compiled)
    def backward(args: list[Any]) -> Any:
        if torch._C._autograd._get_current_graph_task_keep_graph():
            for index in donated:
                saved = args[index]
                args[index] = torch.empty_strided(
                    saved.size(), saved.stride(), dtype=saved.dtype, device=saved.device
                ).copy_(saved)
        return compiled(args)

    backward._boxed_call = True  # type: ignore[attr-defined] # torch hands the arguments over in a list, to be emptied
    return backward


def _failing_as_by_torch(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def compile_backward(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except Exception:
            lazily = [_lazy(value) for value in args]
            lazily_named = {name: _lazy(value) for name, value in kwargs.items()}
            if all(new is old for new, old in zip(lazily, args, strict=True)) and lazily_named == kwargs:
                raise
            return original(*lazily, **lazily_named)

    return compile_backward


def _lazy(value: Any) -> Any:
    if getattr(value, "force_non_lazy_backward_lowering", False) and dataclasses.is_dataclass(value):
        return dataclasses.replace(value, force_non_lazy_backward_lowering=False)  # type: ignore[type-var] # an object
    return value
