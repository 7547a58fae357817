"""The key of a trace: all that decides what dynamo makes of a function, and is no guard.

Beside the environment, under which everything of a graph is filed: dynamo's, inductor's and functorch's configuration,
torch's settings that a compile reads, the arguments of `torch.compile`, and the function's code. Whatever else dynamo
could read (modes, hooks, stances, other compilers) must be as torch starts up: `why_not` says what is not.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo import convert_frame, eval_frame, symbolic_convert
from torch._dynamo.callback import callback_handler
from torch._functorch import config as functorch_config
from torch._inductor import config as inductor_config
from torch.nn.modules import module as nn_module

from compile_client.traces.names import Names
from compile_torch.key.key_parts import PARTS, gathered_parts
from compile_torch.key.state import read_state
from compile_wire.kernel.environment import TRACE_PREFIX

if TYPE_CHECKING:
    import types

    from compile_torch.versions import TorchVersion

_FORM = "3"
"""Of what is recorded; another form has other keys."""

_GLOBAL_HOOKS = (
    "_global_backward_pre_hooks", "_global_backward_hooks", "_global_forward_pre_hooks", "_global_forward_hooks",
    "_global_is_full_backward_hook",
)  # fmt: skip
_PASSES = (
    "post_grad_custom_pre_pass", "post_grad_custom_post_pass", "joint_custom_pre_pass", "joint_custom_post_pass",
    "pre_grad_custom_pass", "_pre_fusion_custom_pass", "_post_fusion_custom_pass",
)  # fmt: skip
_PLACES = frozenset({"debug_dir_root"})
"""Settings that name directories, and decide nothing."""
_OVERRIDES = ("debug_backend_override", "debug_dynamo_config_override", "debug_inductor_config_override")
_TOLD = ("guard_export_fn", "guard_fail_fn", "guard_filter_fn")


def why_not(hooks: Any, compiler: Any, *, export: bool, package: Any) -> tuple[str, str] | None:
    """Return why nothing may be skipped in this process as it is now, in a word and in words; None where it may."""
    inductor: Any = eval_frame.innermost_backend(compiler)
    if type(inductor) is not torch._TorchCompileInductorWrapper:
        return "backend", "its backend is not inductor as torch.compile makes it"
    stance = eval_frame._stance
    checks = (
        ("export", "it is exported", export or package is not None),
        ("hooks", "torch.compile was given hooks for its guards", any(getattr(hooks, name) for name in _TOLD)),
        ("hooks", "somebody is told when a compile begins or ends", _told_of_compiles()),
        ("hooks", "somebody rewrites dynamo's bytecode", convert_frame._bytecode_hooks),
        ("hooks", "there are hooks on all modules", any(getattr(nn_module, name) for name in _GLOBAL_HOOKS)),
        ("hooks", "there are hooks on what autograd saves", torch._C._autograd._top_saved_tensors_default_hooks(True)),
        ("stance", "torch.compiler.set_stance is in force", stance.stance != "default" or stance.backend is not None),
        ("compiled_autograd", "compiled autograd is on", dynamo_config.compiled_autograd or _compiled_autograd()),
        ("distributed", "torch.distributed is initialized", _distributed()),
        ("modes", "a mode of torch's dispatcher is active", _modes() > 0),
        ("cudagraphs", "CUDA graphs are on", _cudagraphs(inductor)),
        ("passes", "inductor runs passes of the user's", any(getattr(inductor_config, name, None) for name in _PASSES)),
        ("debug", "dynamo's debugging overrides are set", any(getattr(dynamo_config, name) for name in _OVERRIDES)),
        ("polyfills", "a function was given another body for dynamo", _user_polyfills()),
        ("precompile", "torch's own precompile is on, which drops guards", dynamo_config.caching_precompile),
    )
    return next(((reason, text) for reason, text, holds in checks if holds), None)


def trace_key(
    code: types.CodeType, scope: dict[str, Any], compiler: Any, version: TorchVersion, *, one_graph: bool
) -> str:
    """Return the key under which traces of this function are filed, as this process is now."""
    inductor: Any = eval_frame.innermost_backend(compiler)
    tracer: Any = symbolic_convert
    parts = gathered_parts(version, [])
    said = [
        _FORM,
        Names().code(code),
        scope.get("__name__", ""),
        one_graph,
        tracer._get_error_on_graph_break(),
        sorted((name, _value(value)) for name, value in inductor.config.items()),
        repr(inductor.dynamic),
        repr(inductor.name),
        *(_settings(config.get_config_copy()) for config in (dynamo_config, torch.compiler.config)),
        *(_settings(_portable(config)) for config in (inductor_config, functorch_config)),
        list(read_state().items()),
        [[name, parts[name]] for name in PARTS],
        _device(),
    ]
    return TRACE_PREFIX + hashlib.sha256(repr(said).encode()).hexdigest()


def _portable(config: Any) -> dict[str, Any]:
    """Return the settings that decide what is compiled, in a form that is the same in each process.

    torch's own way of saying them imports the whole compiler in 2.15, for a class that users rarely set.
    """
    made = ("inductor_choices_class", *getattr(config, "_cache_config_factory_keys", ()))
    settings: dict[str, Any] = config.get_config_copy()
    if any(settings.get(name) is not None for name in made):
        settings = config.save_config_portable(ignore_private_configs=False)
        return settings
    ignored = tuple(getattr(config, "_cache_config_ignore_prefix", ()))
    return {name: value for name, value in settings.items() if not name.startswith(ignored)}


def _settings(settings: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((name, _value(value)) for name, value in settings.items() if name not in _PLACES)


def _value(value: Any) -> str:
    """Return a setting as text that is the same in each process."""
    if isinstance(value, (set, frozenset)):
        return repr(sorted(map(_value, value)))
    if isinstance(value, (list, tuple)):
        return repr([_value(item) for item in value])
    if isinstance(value, dict):
        return repr(sorted((_value(key), _value(item)) for key, item in value.items()))
    if callable(value) or "__repr__" not in _defined(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return repr(value)


def _defined(value: Any) -> set[str]:
    return {name for base in type(value).__mro__ if base is not object for name in vars(base)}


def _device() -> str:
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call] # torch's
        return f"cuda:{torch.cuda.current_device()}"
    return ""


def _told_of_compiles() -> bool:
    return bool(callback_handler.start_callbacks or callback_handler.end_callbacks)


def _distributed() -> bool:
    distributed = torch.distributed
    return bool(distributed.is_available() and distributed.is_initialized())


def _cudagraphs(inductor: Any) -> bool:
    return bool(inductor_config.triton.cudagraphs or inductor.config.get("triton.cudagraphs"))


def _compiled_autograd() -> bool:
    from torch._dynamo import compiled_autograd

    return bool(compiled_autograd.compiled_autograd_enabled or compiled_autograd.in_compiled_autograd_region)


def _modes() -> int:
    return int(torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack())


def _user_polyfills() -> bool:
    from torch._dynamo.variables.functions import PolyfilledFunctionVariable

    bodies = PolyfilledFunctionVariable._get_polyfill_handlers().values()
    return any(not str(getattr(body, "__module__", "")).startswith("torch.") for body in bodies)
