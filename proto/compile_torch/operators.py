"""The allow-list: which functions a graph may name, and by which names.

A GraphSpec names operators; the worker calls what a name resolves to. So the list is closed: tensor functions of torch,
its registered operators, arithmetic from `operator` and `math`. What reads or writes files, loads code, or gives access
to Python's objects by name (`getattr`, `operator.attrgetter`, `operator.call`, `torch.load`, `torch.from_file`, ...) is
not on it, and neither is anything that a dotted name could reach through a module's other attributes: a name is looked
up in these tables only, never walked.

torch is imported inside the functions, because both ends share this one list and neither may pay for it at import.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import functools
from typing import Any

from compile_torch import dtensors
from compile_torch.checked_calls import checked_name
from compile_torch.library_operators import library_of_name
from compile_torch.schemas import has_tensor_overload, is_tensor_operator, is_tensor_packet
from compile_wire.errors import MalformedError

OPERATOR = frozenset(
    "abs add and_ concat contains eq floordiv ge getitem gt iadd iand ifloordiv ilshift imatmul imod imul "
    "index inv invert ior ipow irshift is_ is_not isub itruediv ixor le lshift lt matmul mod mul ne neg "
    "not_ or_ pos pow rshift setitem sub truediv truth xor".split()
)
BUILTINS = frozenset("abs bool divmod float int len max min pow round sum".split())
MATH_DENIED = frozenset({"prod", "sumprod"})

NAMESPACES = frozenset({"aten", "prims", "inductor", "mkldnn", "quantized", "quantized_decomposed", "rng_prims"})
"""Namespaces of `torch.ops` that every torch registers by itself. Beside them only those of `library_operators` may be
named; a user's own operators exist only in the trainer."""

OPS_DENIED = frozenset(
    {"from_file", "save", "load", "manual_seed", "_cuda_getCurrentRawStream", "_from_blob", "_print", "warn"}
)

HIGHER_ORDER = frozenset(
    "autograd_function_apply associative_scan checkpoint cond flex_attention flex_attention_backward "
    "invoke_subgraph map map_impl out_dtype scan tag_activation_checkpoint while_loop wrap "
    "wrap_activation_checkpoint wrap_with_autocast wrap_with_set_grad_enabled".split()
)

TORCH_DENIED = frozenset(
    "from_file import_ir_module set_vital read_vitals compile load save _from_blob _print boolean_dispatch "
    "overload".split()
)
"""Callables that touch files, code, the process or memory by its address, or that make functions."""

WITHOUT_SCHEMA = frozenset("as_tensor asarray nested_tensor tensor".split())
"""Functions of torch's own Python binding that make tensors, and that the dispatcher knows no operator of."""

EXTRA = (
    "torch._C._autograd._saved_tensors_hooks_disable",
    "torch._C._autograd._saved_tensors_hooks_enable",
    "torch._C._set_grad_enabled",
    "torch._C._functorch._add_batch_dim",
    "torch._C._functorch._grad_decrement_nesting",
    "torch._C._functorch._grad_increment_nesting",
    "torch._C._functorch._unwrap_for_grad",
    "torch._C._functorch._wrap_for_grad",
    "torch._C._functorch.get_inplace_requires_grad_allowed",
    "torch._C._functorch.get_unwrapped",
    "torch._C._functorch.set_inplace_requires_grad_allowed",
    "torch._C._functorch._remove_batch_dim",
    "torch._functorch.eager_transforms._autograd_grad",
    "torch._functorch.eager_transforms._set_tensor_requires_grad",
    "torch._functorch.eager_transforms._unwrap_for_grad",
    "torch._functorch.predispatch._add_batch_dim",
    "torch._functorch.predispatch._remove_batch_dim",
    "torch._functorch.predispatch._vmap_increment_nesting",
    "torch._functorch.predispatch._vmap_decrement_nesting",
    "torch._functorch.predispatch.lazy_load_decompositions",
    # A tuple of sizes: dynamo puts it where a size that it computes is handed on whole. Takes numbers, keeps them.
    "torch.Size",
    "torch._sym_sqrt",
    "torch.amp.autocast_mode._enter_autocast",
    "torch.amp.autocast_mode._exit_autocast",
    "torch.autograd.function.FunctionCtx",
    "torch.sym_float",
    "torch.sym_int",
    "torch.sym_ite",
    "torch.sym_max",
    "torch.sym_min",
    "torch.sym_not",
    "torch.sym_sum",
)
"""Functions that dynamo puts into graphs and that no rule below covers."""

METHODS_DENIED = frozenset(
    "apply_ backward map_ map2_ numpy data_ptr register_hook register_post_accumulate_grad_hook "
    "retain_grad share_memory_ storage untyped_storage tolist to_dense_backward module_load reinforce "
    "dlpack refine_names set_data".split()
)
"""Methods of tensors that call Python, leave the fake world, or have effects beyond the graph."""

METHODS_WITHOUT_SCHEMA = frozenset(
    "bfloat16 bool byte cdouble cfloat char cpu cuda dim_order double element_size float half int long ndimension "
    "nelement new_tensor short type unique xpu".split()
)
"""Methods that torch's Python has beside the dispatcher's operators. `new` is not among them: it takes an address."""

DUNDER_METHODS = frozenset(
    f"__{name}__"
    for name in "abs add and eq floordiv ge getitem gt iadd iand ifloordiv imod imul invert ior ipow isub itruediv "
    "ixor le lt matmul mod mul ne neg or pow radd rfloordiv rmatmul rmul rpow rsub rtruediv setitem sub "
    "truediv xor".split()
)


def name_of(target: Any) -> str | None:
    """Return the name under which the worker will find `target`, or None where it is not on the list.

    The functions of `checked_calls` have names that `resolve` does not know: their arguments are checked first.
    """
    import torch

    if (name := checked_name(target)) is not None:
        return name
    if isinstance(target, torch._ops.OpOverload):
        name = f"op:{target.namespace}.{target._opname}.{target._overloadname}"
    elif isinstance(target, torch._ops.OpOverloadPacket):
        name = "op:" + target._qualified_op_name.replace("::", ".")
    elif isinstance(target, torch._ops.HigherOrderOperator):
        name = f"hop:{target.name()}"
    else:
        candidates = _functions()[1].get(id(target), ())
        return next((name for name in candidates if _is_allowed(name)), None)
    try:
        return name if resolve(name) is target else None
    except MalformedError:
        return None


def resolve(name: str) -> Any:
    """Return what `name` stands for; raise `MalformedError` where it is not on the list or unknown to this torch."""
    kind, _, rest = name.partition(":")
    if kind == "op" and rest:
        return _registered(rest)
    if kind == "hop" and rest:
        import torch

        if rest in HIGHER_ORDER and (found := getattr(torch.ops.higher_order, rest, None)) is not None:
            return found
        raise MalformedError(f"the higher-order operator {rest!r:.80} is not one that may be named")
    found = _functions()[0].get(name)
    if found is None or not _is_allowed(name):
        raise MalformedError(f"the function {name!r:.120} is not one that may be named")
    return found


def check_method(name: str) -> None:
    """Raise `MalformedError` unless `name` is a method of tensors that a graph may call."""
    import torch

    if name in DUNDER_METHODS or name in dtensors.METHODS:
        return
    known = name in METHODS_WITHOUT_SCHEMA or (name.isidentifier() and has_tensor_overload(f"aten::{name}"))
    if name.startswith("_") or name in METHODS_DENIED or not (known and callable(getattr(torch.Tensor, name, None))):
        raise MalformedError(f"the method {name!r:.80} is not one that may be called")


def _registered(path: str) -> Any:
    import torch

    parts = path.split(".")
    if len(parts) not in {2, 3} or parts[1] in OPS_DENIED:
        raise MalformedError(f"the operator {path!r:.120} is not one that may be named")
    if parts[0] not in NAMESPACES and library_of_name("::".join(parts[:2])) is None:
        raise MalformedError(f"the operator {path!r:.120} is not one that may be named")
    if not all(part.isidentifier() and not part.startswith("__") for part in parts):
        raise MalformedError(f"the operator {path!r:.120} is not one that may be named")
    schema = f"{parts[0]}::{parts[1]}"
    overload = parts[2] if len(parts) == 3 else None
    if overload is None:
        known = is_tensor_packet(schema)
    else:
        known = is_tensor_operator(schema, "" if overload == "default" else overload)
    if not known:
        raise MalformedError(f"this torch has no operator {path!r:.120} on tensors alone")
    packet = getattr(getattr(torch.ops, parts[0]), parts[1])
    return packet if overload is None else getattr(packet, overload)


@functools.cache
def _functions() -> tuple[dict[str, Any], dict[int, tuple[str, ...]]]:
    """Return the functions by name, and their names by identity; the first that is allowed is a function's own.

    Whether the schemas of the dispatcher's functions allow them is looked up for those that are asked for: see
    `_is_allowed`.
    """
    import builtins
    import importlib
    import math
    import operator

    import torch

    table: dict[str, Any] = {}
    table.update({f"operator.{name}": getattr(operator, name) for name in sorted(OPERATOR)})
    table.update({f"builtins.{name}": getattr(builtins, name) for name in sorted(BUILTINS)})
    table.update(_callables("math", math, lambda name, _: name not in MATH_DENIED))
    functions = torch._C._VariableFunctions
    table.update(
        _callables(
            "torch",
            torch,
            lambda name, _: getattr(functions, name, None) is not None,
        )
    )
    for name in _BUILTIN_MODULES:
        table.update(_callables(f"torch._C.{name}", getattr(torch._C, name), lambda _, found: _is_builtin(found)))
    for name in ("torch.functional", "torch.nn.functional"):
        module = importlib.import_module(name)
        # Dispatchers made by torch._jit_internal.boolean_dispatch (max_pool2d and its kin) belong to the module, too.
        homes = {name, "torch._jit_internal"}
        table.update(_callables(name, module, lambda _, found, homes=homes: getattr(found, "__module__", "") in homes))  # type: ignore[misc]
    for path in EXTRA:
        home, _, name = path.rpartition(".")
        try:
            table[path] = getattr(importlib.import_module(home), name)
        except (ImportError, AttributeError):  # this torch has no such function, so no graph of it names one
            continue
    names: dict[int, tuple[str, ...]] = {}
    for name, found in table.items():
        names[id(found)] = (*names.get(id(found), ()), name)
    return table, names


_BUILTIN_MODULES = ("_nn", "_special", "_linalg", "_fft", "_sparse", "_nested")


@functools.cache
def _is_allowed(path: str) -> bool:
    """Whether a function of the table may be named: of those that the dispatcher knows, only what is on tensors."""
    home, _, name = path.rpartition(".")
    if path in EXTRA or (home != "torch" and home not in {f"torch._C.{module}" for module in _BUILTIN_MODULES}):
        return True
    return _is_on_tensors(name)


def _callables(prefix: str, module: Any, wanted: Any) -> dict[str, Any]:
    found = {}
    for name in sorted(vars(module) if prefix != "torch" else dir(module)):
        value = getattr(module, name, None)
        if name in TORCH_DENIED or not callable(value) or isinstance(value, type):
            continue
        if name.startswith("__") or (name.startswith("_") and prefix != "torch"):
            continue
        if wanted(name, value):
            found[f"{prefix}.{name}"] = value
    return found


def _is_on_tensors(name: str) -> bool:
    return name in WITHOUT_SCHEMA or has_tensor_overload(f"aten::{name}")


def _is_builtin(value: Any) -> bool:
    return type(value).__name__ == "builtin_function_or_method"
