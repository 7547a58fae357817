"""Whether a known library's operators are what its files declare, or whether the program has put something else there.

What a worker compiles for `compile_torch.library_operators` is what the library's files say. A program may give such an
operator another fake, formula, rule or kernel; then it is the program's own operator, and compiled here.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

from compile_client.graphs.user_code.library_code import given_to
from compile_client.graphs.user_code.operator_facts import UNTOLD, dispatcher_entries, is_declared, is_torch_path
from compile_client.graphs.user_code.reach_names import pieces_of
from compile_client.graphs.user_code.registrations import kernels_of
from compile_client.graphs.user_code.vouching import version_of
from compile_torch.library_operators import Library, library_digest, library_files

_MOST = 300
"""Objects that one function may hold, at any depth; of more than these nobody says whose they are."""
_WRAPPERS = frozenset({"Autograd", "Meta"})
"""Keys for which torch itself registers a function of its own, around the one that a library has given."""
_WRAPPERS_AT = f"{os.sep}_library{os.sep}"
"""Where of torch's the functions are that it registers for a `custom_op`."""
_EMPTY: tuple[Any, ...] = (None, False, (), [], {}, set(), frozenset())


def why_not_as_shipped(library: Library) -> str:
    """Return in words why a library's operators are not certainly those of its files; empty where they are."""
    if not library_digest(library):
        return f"files of {library.package} cannot be read, or have changed since this process began"
    files = frozenset(os.path.realpath(path) for path in library_files(library))
    for operator in sorted(library.operators | library.inner):
        name = f"{library.package}::{operator}"
        if not is_declared(name):
            continue
        if version_of(name):
            return f"the program has given a version to {name}"
        for what in _foreign(name, library, files):
            return f"{what} of {name} is not {library.package}'s own"
    return ""


def _foreign(name: str, library: Library, files: frozenset[str]) -> Iterator[str]:
    """Yield what of an operator does not come from the library's files."""
    from torch._library.custom_ops import OPDEFS

    defined = OPDEFS.get(name)
    noted = kernels_of(name)
    noted_keys = {key for key, _ in noted}
    for key, path in dispatcher_entries(name).items():
        if path.endswith(".py") and is_torch_path(path):
            if key not in noted_keys and not (defined is not None and _WRAPPERS_AT in path):
                yield f"the kernel for {key}, registered before the client was on,"
        elif path.endswith(".py"):
            if os.path.realpath(path) not in files:
                yield f"the kernel for {key}"
        elif f"/{library.package}/csrc/" not in path:
            yield f"the kernel for {key}"
    for what, value in (*_definition(defined), *_registry(name), *_implementations(name)):
        if not all(_is_from(code, files) for code in _flat(value)):
            yield what
    for key, function in noted:
        if not _is_shipped_kernel(function, key, files, defined=defined is not None):
            yield f"the kernel for {key}"


def _definition(definition: Any) -> Iterator[tuple[str, Any]]:
    if definition is not None:
        for attribute, value in sorted(vars(definition).items()):
            if attribute not in UNTOLD:
                yield f"the definition's {attribute.lstrip('_')}", value


def _registry(name: str) -> Iterator[tuple[str, Any]]:
    import torch

    entry = torch._library.simple_registry.singleton.find(name)
    yield "the fake", _fake(name)
    yield "a rule", getattr(getattr(entry, "torch_dispatch_rules", None), "_data", None)


def _fake(name: str) -> Any:
    import torch

    kernel = torch._library.simple_registry.singleton.find(name).fake_impl.kernel
    return None if kernel is None else getattr(kernel, "func", kernel)


def _implementations(name: str) -> Iterator[tuple[str, Any]]:
    import torch

    packet: Any = functools.reduce(getattr, name.split("::"), torch.ops)
    for overload in packet.overloads():
        yield "a Python kernel", getattr(getattr(packet, overload), "py_kernels", None)


def _is_empty(value: Any) -> bool:
    return any(type(value) is type(empty) and value == empty for empty in _EMPTY)


def _is_shipped_kernel(function: Any, key: str, files: frozenset[str], *, defined: bool) -> bool:
    """Whether what was registered for a key is the library's, or what torch makes around what it has from the library.

    Around what `custom_op` keeps of an operator that is `defined` by it: that is looked at in the definition.
    """
    if not isinstance(function, FunctionType):
        return False
    path = function.__code__.co_filename
    if is_torch_path(path):
        return _WRAPPERS_AT in path if defined else key in _WRAPPERS and _is_from(function, files)
    return _is_from(function, files)


def _flat(value: Any) -> Iterator[Any]:
    """Yield what an attribute or rule holds; nothing where it is not set."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _flat(item)
    elif not _is_empty(value):
        yield value


def _is_from(code: Any, files: frozenset[str]) -> bool:
    """Whether code, with everything that it was given, is torch's or of these files. A plain value is no code."""
    if _is_plain(code):
        return False
    seen: dict[int, Any] = {}
    waiting = [code]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or _is_plain(value):
            continue
        if len(seen) == _MOST or (parts := _parts(value, files)) is None:
            return False
        seen[id(value)] = value
        waiting.extend(parts)
    return True


def _parts(value: Any, files: frozenset[str]) -> list[Any] | None:
    """Return what else must be of the library; None where it certainly is not."""
    import torch

    if isinstance(value, FunctionType):
        if is_torch_path(value.__code__.co_filename):
            return [*given_to(value)]
        shipped = os.path.realpath(value.__code__.co_filename) in files
        return [*given_to(value), *_called(value)] if shipped else None
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, (staticmethod, classmethod)):
        return [value.__func__]
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    kind = value if isinstance(value, type) else type(value)
    if (kind.__module__ or "").partition(".")[0] not in {"torch", "builtins"}:
        return None
    if isinstance(value, (torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch.library.Library)):
        return []
    if isinstance(value, type):
        # What Python writes for a dataclass is in no file.
        written = dataclasses.is_dataclass(value)
        methods = (held for name, held in vars(value).items() if not (written and name.startswith("__")))
        return [held for held in methods if isinstance(held, (FunctionType, staticmethod, classmethod))]
    return list(getattr(value, "__dict__", {}).values())


def _is_plain(value: Any) -> bool:
    import torch

    plain = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch._C.DispatchKey)
    return isinstance(value, plain) or _is_empty(value)


def _called(function: FunctionType) -> Iterator[Any]:
    """Yield what a library's function finds in its module by name, where a program may have put something else.

    Of a number or text there nobody can see who has put it.
    """
    for piece in pieces_of(function.__code__):
        for name in piece.co_names:
            held = function.__globals__.get(name, _NONE)
            if held is not _NONE and not isinstance(held, ModuleType):
                yield _Untold() if _is_plain(held) else held


class _Untold:
    """Stands for what cannot be told; it is neither torch's nor a library's."""


_NONE = object()
