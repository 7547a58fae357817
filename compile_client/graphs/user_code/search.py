"""The user's code that runs while torch compiles a graph: found, digested for the key, or a reason not to share.

torch has an operator's name in its key, and dynamo a function's. What they do may be compiled into the graph:
formulas of operators, fakes, functions that dynamo does not look into, at any depth, tensor subclasses, kernels that
the user gave to torch's operators, decompositions. Everything that such code leads to is followed
(`compile_client.graphs.user_code.reach`).
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compile_client.graphs.user_code import registrations
from compile_client.graphs.user_code.library_code import is_librarys
from compile_client.graphs.user_code.operator_facts import is_own, operator_facts
from compile_client.graphs.user_code.reach import CannotTellError, Reach
from compile_client.graphs.user_code.reach_names import is_versioned_module, is_versioned_type
from compile_client.graphs.user_code.shipped_operators import why_not_as_shipped
from compile_torch.dtensors import is_dtensor
from compile_torch.key.modes import why_modes_are_not_shared
from compile_torch.library_operators import library_of_name
from compile_torch.operators import NAMESPACES, name_of


@dataclass(frozen=True, slots=True)
class UserCode:
    """Says what code of the user's own takes part in a compile."""

    digest: str = ""
    """Of everything that the user's code leads to; empty where there is none."""
    why_not_shared: str = ""
    """Why the graph is nobody else's business; empty where it may be shared."""


def user_code_of(gm: Any, inputs: Sequence[Any]) -> UserCode:
    """Return what of the user's runs while the graph is compiled with these inputs."""
    if why := why_modes_are_not_shared():
        return UserCode(why_not_shared=why)
    search = _Search()
    where = "the graph"
    try:
        for where, value in (*_in_graph(gm), *_of_inputs(gm, inputs), *_registered()):
            search.add(where, value)
    except CannotTellError as error:
        return UserCode(why_not_shared=f"{search.at or where}: {error}")
    return UserCode(digest=search.digest())


class _Operator:
    """An operator of the user's, by its qualified name."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Search:
    def __init__(self) -> None:
        self._waiting: list[str] = []
        self._seen: set[str] = set()
        self._reach = Reach(self._meet, _is_own)
        self._empty = True
        self.at = ""

    def add(self, where: str, value: Any) -> None:
        self._empty = False
        self.at = where
        if isinstance(value, _Operator):
            self._meet(value.name)
        else:
            self._reach.add(where, value)
        self._follow_operators()

    def digest(self) -> str:
        return "" if self._empty else self._reach.digest()

    def _meet(self, name: str) -> None:
        if name not in self._seen:
            self._seen.add(name)
            self._waiting.append(name)

    def _follow_operators(self) -> None:
        """Follow operators until none is new: they may lead to others."""
        while self._waiting:
            name = self._waiting.pop()
            self.at = f"the operator {name}"
            for what, value in operator_facts(name):
                self._reach.add(what, value)


def _in_graph(gm: Any) -> Iterator[tuple[str, Any]]:
    import torch

    for module in gm.modules():
        if not isinstance(module, torch.fx.GraphModule):
            continue
        for key in ("_checkpoint_context_fn",):
            if key in module.meta:
                yield "the policy of a checkpoint", module.meta[key]
        for node in module.graph.nodes:
            if node.op == "call_function":
                yield from _target(node)
            for value in _values((node.args, node.kwargs)):
                yield f"an argument of {node.name}", value


def _target(node: Any) -> Iterator[tuple[str, Any]]:
    import torch

    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        if _is_own(target._name.partition(".")[0]):
            yield f"the operator {target._name}", _Operator(target._name.partition(".")[0])
    elif isinstance(target, torch._ops.OpOverloadPacket):
        if _is_own(target._qualified_op_name):
            yield f"the operator {target._qualified_op_name}", _Operator(target._qualified_op_name)
    elif isinstance(target, torch._ops.HigherOrderOperator):
        if target.__name__.startswith("triton_kernel_wrapper"):
            yield from _tuner(node)
        elif not is_versioned_type(type(target)):
            yield f"the higher-order operator {target.__name__}", target
    elif not _is_library(target):
        yield f"the function {getattr(target, '__qualname__', target)} in the graph", target


def _is_own(name: str) -> bool:
    """Whether "namespace::operator" is the program's own; a known library's is, where the program has changed it."""
    if (library := library_of_name(name)) is not None:
        return bool(why_not_as_shipped(library))
    return is_own(name)


def _tuner(node: Any) -> Iterator[tuple[str, Any]]:
    """Follow what an autotuner does around a launch: torch's key has the kernel itself, and says nothing of that."""
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

    kernel = kernel_side_table.get_kernel(node.kwargs["kernel_idx"])
    for name in ("reset_to_zero", "restore_value"):
        if value := getattr(kernel, name, None):
            yield name, list(value)


def _is_library(target: Any) -> bool:
    if name_of(target) is not None:
        return True
    module = getattr(target, "__module__", None)
    if module is None:  # methods of built-in types
        module = type(target).__module__
    # A function of torch's that closes over one of the user's is not torch's alone.
    return is_versioned_module(module) and is_librarys(target)


def _values(value: Any) -> Iterator[Any]:
    """Yield the arguments of nodes that are neither data nor torch's: functions, classes and objects of the user's."""
    import torch

    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _values(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _values(item)
    elif isinstance(value, slice):
        yield from _values((value.start, value.stop, value.step))
    elif isinstance(value, torch._ops.OpOverload | torch._ops.OpOverloadPacket):
        name = str(getattr(value, "_name", None) or getattr(value, "_qualified_op_name", ""))
        if _is_own(name.partition(".")[0]):
            yield _Operator(name.partition(".")[0])
    elif not is_versioned_type(type(value)) or (callable(value) and not _is_library(value)):
        yield value


def _of_inputs(gm: Any, inputs: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the classes of tensors that are the user's, whose methods run while torch traces, and what wrappers hold.

    torch's key has of a wrapper what its class says for that (`_stable_hash_for_caching`), and of some objects in its
    context no more than their class.
    """
    import torch

    held = [*inputs, *gm.parameters(), *gm.buffers()] if hasattr(gm, "parameters") else [*inputs]
    kinds = {kind for value in held if isinstance(value, torch.Tensor) for kind in _tensor_kinds(value)}
    for kind in sorted(kinds, key=lambda kind: (kind.__module__, kind.__qualname__)):
        yield f"the tensor class {kind.__qualname__}", kind
    for position, value in enumerate(held):
        # Of a DTensor the key says it otherwise: `compile_torch.dtensors.parts_held`, of the graph's own, too.
        if is_dtensor(value) and not hasattr(value._local_tensor, "__tensor_flatten__"):
            continue
        if isinstance(value, torch.Tensor) and hasattr(value, "__tensor_flatten__"):
            yield f"the tensor {position}, a {type(value).__qualname__}", _wrapped(value)


def _tensor_kinds(value: Any) -> Iterator[type]:
    kind = type(value)
    if not is_versioned_type(kind):
        yield kind
    if hasattr(value, "__tensor_flatten__"):
        names, _ = value.__tensor_flatten__()
        for name in names:
            yield from _tensor_kinds(getattr(value, name))


def _wrapped(tensor: Any) -> list[Any]:
    """Return what a wrapper is made of, down to plain tensors."""
    import torch

    facts = [type(tensor), _of_tensor(tensor)]
    if not hasattr(tensor, "__tensor_flatten__"):
        return facts
    names, context = tensor.__tensor_flatten__()
    held = [(name, getattr(tensor, name)) for name in names]
    tensors = [[name, _wrapped(value)] for name, value in held if isinstance(value, torch.Tensor)]
    # torch's key has a DTensor's placements and its mesh, and the key's part `ranks` says the rest.
    if type(tensor).__module__.startswith("torch.distributed.tensor"):
        return [*facts, tensors]
    others = [[name, getattr(value, "real_obj", value)] for name, value in held if not isinstance(value, torch.Tensor)]
    return [*facts, context, tensors, others]


def _of_tensor(tensor: Any) -> str:
    import torch

    strided = (tensor.stride(), tensor.storage_offset()) if tensor.layout is torch.strided else ()
    return f"{tensor.dtype} {tensor.device} {tensor.layout} {tuple(tensor.shape)} {strided} {tensor.requires_grad}"


def _registered() -> Iterator[tuple[str, Any]]:
    """Yield what a program has registered for torch's own operators: kernels, decompositions, lowerings."""
    for name, key, function in sorted(registrations.overridden(NAMESPACES), key=lambda item: item[:2]):
        yield f"the user's kernel of {name} for {key}", function
    for module_name, table_name in _TABLES:
        table = getattr(sys.modules.get(module_name), table_name, None)
        for operator, function in _own_entries(table or {}):
            yield f"the user's entry for {operator} in {module_name}.{table_name}", function


_TABLES = (
    ("torch._inductor.decomposition", "decompositions"),
    ("torch._decomp", "decomposition_table"),
    ("torch._inductor.lowering", "lowerings"),
    ("torch._inductor.lowering", "user_lowerings"),
)
"""Tables in which a program may put functions that torch calls while it compiles; looked at where they are loaded."""


def _own_entries(table: Any) -> list[tuple[str, Any]]:
    # torch has thousands of entries, and each graph looks at all of them.
    new = [(operator, function) for operator, function in table.items() if id(function) not in _torchs]
    _torchs.update({id(function): function for _, function in new if _is_made_by_torch(function)})
    found = [(str(operator), function) for operator, function in new if id(function) not in _torchs]
    return sorted(found, key=lambda item: item[0])


_torchs: dict[int, Any] = {}
"""Entries that torch has made, by their identity; they are kept, so that no other object gets it."""


def _is_made_by_torch(function: Any) -> bool:
    # torch wraps what is registered, and the wrapper says that it is of the module of what it wraps.
    return is_versioned_module(getattr(function, "__module__", None) or "torch") and is_librarys(function)
