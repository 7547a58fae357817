"""Modes and hooks that are active around a compile and change what it makes of a graph."""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import sys
from typing import Any

from compile_wire.graph.spec import Value


def active_modes() -> list[Value]:
    """Return what is active around this compile, in words; empty where nothing is, as most of the time."""
    import torch

    found: list[Value] = [f"function mode {_mode(mode)}" for mode in torch.overrides._get_current_function_mode_stack()]
    if torch.is_inference_mode_enabled():
        found.append("inference mode")
    if in_compiled_autograd():
        found.append("compiled autograd")
    return found


def why_modes_are_not_shared() -> str:
    """Return why what is compiled here now is nobody else's business; empty where nothing speaks against it."""
    import torch

    for mode in torch.overrides._get_current_function_mode_stack():
        if _name(mode) != "torch.utils._device.DeviceContext":
            return f"the torch function mode {_name(mode)} is active, whose effects cannot be put into a key"
    if torch._C._len_torch_dispatch_stack():
        return "a torch dispatch mode is active, whose effects cannot be put into a key"
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "the graph is compiled inside of a function transform (vmap, grad, ...)"
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if hooks is not None and all(isinstance(hook, torch.fx.GraphModule) for hook in hooks):
        return "saved-tensor hooks that torch compiles into the graph are active"
    return ""


def in_compiled_autograd() -> bool:
    """Whether autograd itself is being compiled: a graph's backward is then taken apart, and compiled by others."""
    compiled_autograd = sys.modules.get("torch._dynamo.compiled_autograd")
    return bool(
        getattr(compiled_autograd, "in_compiled_autograd_region", False)
        or getattr(compiled_autograd, "compiled_autograd_enabled", False)
    )


def _mode(mode: Any) -> str:
    return f"{_name(mode)} {getattr(mode, 'device', '')}".rstrip()


def _name(mode: Any) -> str:
    return f"{type(mode).__module__}.{type(mode).__qualname__}"
