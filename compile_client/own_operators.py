"""A digest of what a graph's own operators and kernels do, as far as torch's key does not say it.

torch has an operator's name in its key. But what an operator does may be compiled into the graph: the body of a
`triton_op`, the formula that `register_autograd` was given, what a fake says of its strides. Of an autotuned kernel
torch has source and candidates, but not what is reset or restored between launches. An edit of these is another graph.

Guarantees: empty for graphs without any; the same files in another folder or virtual environment give the same digest.
Nothing is imported, and none of it is called. What an operator does in C++ has no source here, and stays out.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import functools
import hashlib
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from compile_wire.torch_side.operators import NAMESPACES

_REGISTERED = re.compile(r"registered at (.+?):\d+\b")
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_MAX_VISITED = 2000


def own_operators_digest(gm: Any) -> str:
    """Return the digest of what the graph's own operators and kernels do; empty where torch's key has all of it."""
    facts = sorted({fact for node in _nodes(gm) for fact in _facts(node)} - {""})
    return hashlib.sha256("\0".join(facts).encode()).hexdigest() if facts else ""


def _nodes(gm: Any) -> Iterator[Any]:
    import torch

    for module in gm.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield from (node for node in module.graph.nodes if node.op == "call_function")


def _facts(node: Any) -> Iterator[str]:
    import torch

    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        if target.namespace not in NAMESPACES:
            yield from _operator(target._name)
    elif isinstance(target, torch._ops.OpOverloadPacket):
        if target._qualified_op_name.partition("::")[0] not in NAMESPACES:
            for overload in list(target):
                yield from _operator(getattr(target, overload)._name)
    elif isinstance(target, torch._ops.HigherOrderOperator) and target.__name__.startswith("triton_kernel_wrapper"):
        from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

        yield from _tuner(kernel_side_table.get_kernel(node.kwargs["kernel_idx"]))


def _tuner(kernel: Any) -> Iterator[str]:
    """What an autotuner does around a launch. Functions that it calls are refused by torch."""
    for name in ("reset_to_zero", "restore_value"):
        if value := getattr(kernel, name, None):
            yield f"{name} {list(value)}"


def _operator(name: str) -> Iterator[str]:
    """`name` as the dispatcher knows it: namespace::operator.overload."""
    import torch
    from torch._library.custom_ops import OPDEFS

    begin: list[Any] = []
    plain = name.partition(".")[0]
    if (definition := OPDEFS.get(plain)) is not None:
        begin += [value for kept in vars(definition).values() for value in _members(kept)]
    entry = torch._library.simple_registry.singleton.find(plain)
    begin += [getattr(entry.fake_impl.kernel, "func", None)] if entry.fake_impl.kernel is not None else []
    files = set(_REGISTERED.findall(torch._C._dispatch_dump(name)))
    for fact in {*_reached(begin), *(_file(path) for path in files if _is_own(path))} - {""}:
        yield f"{plain} {fact}"


def _members(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return [part for item in value.values() for part in _members(item)]
    if isinstance(value, (list, tuple, set)):
        return [part for item in value for part in _members(item)]
    return [value]


def _reached(begin: list[Any]) -> Iterator[str]:
    """Yield facts of all functions, classes and plain values that `begin` leads to by the names that they use."""
    visited: set[int] = set()
    waiting = list(begin)
    while waiting and len(visited) < _MAX_VISITED:
        value = _unwrapped(waiting.pop())
        if id(value) in visited:
            continue
        visited.add(id(value))
        if isinstance(value, type) and _is_own(_source(value)):
            waiting += vars(value).values()
            yield _file(_source(value))
        elif isinstance(value, FunctionType):
            if _is_own(_source(value)):
                yield _code(value)
                for name, used in _used(value):
                    if isinstance(used, _PLAIN):
                        yield f"{name} = {used!r}"
                    waiting += _members(used)
            elif value.__closure__:  # a decorator of torch's around a function of the user's
                waiting += [cell.cell_contents for cell in value.__closure__ if _is_filled(cell)]


def _unwrapped(value: Any) -> Any:
    """The function in a method, a partial, a kernel, an autotuner, or behind a decorator that says what it wraps."""
    for _ in range(20):
        if isinstance(value, (MethodType, staticmethod, classmethod)):
            value = value.__func__
        elif isinstance(value, functools.partial):
            value = value.func
        elif isinstance(inner := inspect.getattr_static(value, "__wrapped__", None), FunctionType):
            value = inner
        elif type(value).__module__.startswith("triton.") and hasattr(value, "fn"):
            value = value.fn
        elif type(value).__name__ == "CustomOpDef":
            value = value._init_fn
        else:
            break
    return value


def _used(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Globals and cells that a function names, and of modules what it names of them."""
    names = sorted(name for name in set(_names(function.__code__)) if not name.startswith("__"))
    scope = {name: function.__globals__[name] for name in names if name in function.__globals__}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    scope |= {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}
    for name, value in scope.items():
        yield name, value
        if isinstance(value, ModuleType) and _is_own(getattr(value, "__file__", None) or ""):
            yield from ((f"{name}.{part}", vars(value)[part]) for part in names if part in vars(value))


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _is_filled(cell: Any) -> bool:
    try:
        return bool(cell.cell_contents is not cell)
    except ValueError:
        return False


def _source(value: Any) -> str:
    try:
        return inspect.getsourcefile(value) or ""
    except (TypeError, OSError):
        return ""


def _is_own(path: str) -> bool:
    """Whether a file is neither torch's, Triton's nor Python's; their versions are in the environment."""
    if not path:
        return False
    at = os.path.realpath(path)
    return not at.startswith(_packages()) and (not at.startswith(_library()) or "-packages" in at)


@functools.cache
def _library() -> str:
    return os.path.realpath(sysconfig.get_path("stdlib")) + os.sep


def _packages() -> tuple[str, ...]:
    packages = [module.__file__ for name in ("torch", "triton") if (module := sys.modules.get(name)) is not None]
    return tuple(os.path.dirname(os.path.realpath(file)) + os.sep for file in packages if file)


def _code(function: FunctionType) -> str:
    """The file that a function is in; its own text where there is no such file (a notebook); else what Python runs."""
    if fact := _file(_source(function)):
        return fact
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = function.__code__
        return f"{code.co_code.hex()} {[constant for constant in code.co_consts if isinstance(constant, _PLAIN)]}"


def _file(path: str) -> str:
    try:
        return _digest(path, os.stat(path).st_mtime_ns)
    except (OSError, ValueError):
        return ""


@functools.lru_cache(1000)
def _digest(path: str, _changed_ns: int) -> str:
    return f"file {hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
