"""What belongs to a library, as its version says it, and what a program has put into its place.

A function or class is a library's own where a module of the library has made it and nothing of the user's is in it. The
name of its module alone does not say that: a library makes functions and classes around what it is given, and a program
may put its own under a library's names.
"""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Collection, Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any

from compile_client.graphs.user_code.reach_names import is_versioned_module, is_versioned_type

_CODE = (FunctionType, MethodType, functools.partial, staticmethod, classmethod, type)
_BOUND_IN_C = (BuiltinFunctionType, MethodWrapperType)
"""From torch 2.14 on `autograd.Function.apply` is one, bound to the class that a program derives."""
_CONSTANTS = (bool, int, float, complex, str, bytes, type(None))
_GETTERS = (operator.attrgetter, operator.itemgetter, operator.methodcaller)
_HEAP_TYPE = 1 << 9
_MAX_DEPTH = 16
"""How deep objects inside of each other are looked at; what lies deeper is taken for the user's, which is safe."""
_REGISTRIES = frozenset({"torch._ops", "torch.library", "torch._library.custom_ops"})
"""Objects of these stand for operators, whose own facts are looked at elsewhere."""

_known: dict[int, Any] = {}
"""Functions and classes that were found to be a library's, by their identity; kept, so that nobody else gets it."""


def is_librarys(value: Any) -> bool:
    """Whether code is a library's, with everything that it was given: bound objects, arguments, closures."""
    seen: dict[int, Any] = {}
    if not _is_clean(value, seen, _MAX_DEPTH):
        return False
    # Where all of it is the library's, so is each part.
    _known.update({number: part for number, part in seen.items() if isinstance(part, (FunctionType, type))})
    return True


def is_librarys_class(kind: type) -> bool:
    """Whether a class is a library's: under its name there, or made of nothing but the library's."""
    return is_versioned_type(kind) and (not kind.__flags__ & _HEAP_TYPE or _is_at_home(kind) or is_librarys(kind))


def _is_clean(value: Any, seen: dict[int, Any], depth: int) -> bool:
    if id(value) in _known or id(value) in seen:
        return True
    if depth == 0:
        return False
    parts = _parts(value)
    if parts is None:
        return False
    if parts:
        seen[id(value)] = value
    return all(_is_clean(part, seen, depth - 1) for part in parts)


def _parts(value: Any) -> Collection[Any] | None:
    """Return what else must be a library's for a value to be one's; None where it is certainly the user's."""
    if isinstance(value, FunctionType):
        home = value.__globals__.get("__name__") or ""
        own = is_versioned_module(value.__module__ or "") and is_versioned_module(home)
        return [*given_to(value)] if own else None
    if isinstance(value, MethodType):
        return (value.__func__, value.__self__)
    if isinstance(value, _BOUND_IN_C):
        return () if _has_no_owner(value) else (value.__self__,)
    if isinstance(value, functools.partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, (staticmethod, classmethod)):
        return (value.__func__,)
    if isinstance(value, property):
        return [function for function in (value.fget, value.fset) if function is not None]
    kind = value if isinstance(value, type) else type(value)
    if not is_versioned_type(kind):
        return None
    if isinstance(value, (list, tuple, set, frozenset)):
        return list(value)[:_MOST]
    if isinstance(value, dict):
        return list(value.values())[:_MOST]
    if isinstance(value, type):
        return () if not kind.__flags__ & _HEAP_TYPE or _is_at_home(kind) else _members(kind)
    if isinstance(value, ModuleType) or any(base.__module__ in _REGISTRIES for base in kind.__mro__):
        return ()
    # An object of a library's may have been given something, as what torch keeps of a formula.
    return list(getattr(value, "__dict__", {}).values())[:_MOST]


_MOST = 100
"""Of a container's items, so many are looked at; the user's code behind them would not be seen."""


def _members(kind: type) -> list[Any]:
    # What Python itself writes for a named tuple is in a module of its own.
    noise = {"__new__"} if issubclass(kind, tuple) and hasattr(kind, "_fields") else set()
    return [held for name, held in vars(kind).items() if name not in noise]


def replaced(holder: ModuleType | type, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield (where, value) of what a program may have put into a library's module or class, of these names.

    Constants and what is made with values (partials, bound methods, closures) are always told: a program may have
    changed them. Of modules and classes inside, only what is certainly not the library's: which of them are loaded
    depends on what else a program does.
    """
    for name in names:
        held = vars(holder).get(name, _NONE)
        if (_is_constant(held) and not name.startswith("__")) or (
            isinstance(holder, ModuleType) and _is_made_with_values(held)
        ):
            yield f"{holder.__name__}.{name}", held
    seen: set[int] = set()
    waiting = [holder]
    while waiting:
        place = waiting.pop()
        if id(place) in seen:
            continue
        seen.add(id(place))
        for name in names:
            held = vars(place).get(name, _NONE)
            if isinstance(held, ModuleType):
                if is_versioned_module(held):
                    waiting.append(held)
            elif isinstance(held, type) and is_librarys_class(held):
                waiting.append(held)
            elif _is_code(held) and not is_librarys(held):
                yield f"{place.__name__}.{name}", held


def _is_code(value: Any) -> bool:
    if isinstance(value, _BOUND_IN_C):
        return not _has_no_owner(value)
    return isinstance(value, _CODE) or (callable(value) and not is_versioned_type(type(value)))


def _has_no_owner(value: Any) -> bool:
    """Whether a function that is written in C is one of a module, and bound to nothing."""
    return value.__self__ is None or isinstance(value.__self__, ModuleType)


def _is_constant(value: Any) -> bool:
    """Whether it is a plain value, and no path, which is another one on each machine."""
    return type(value) in _CONSTANTS and not (isinstance(value, str) and "/" in value)


def _is_made_with_values(value: Any) -> bool:
    if isinstance(value, FunctionType):
        return not _is_at_home(value)
    return isinstance(value, (functools.partial, MethodType, *_GETTERS))


def _is_at_home(code: type | FunctionType) -> bool:
    found: Any = sys.modules.get(code.__module__ or "")
    for part in code.__qualname__.split("."):
        found = vars(found).get(part) if isinstance(found, (ModuleType, type)) else None
    return found is code


def given_to(function: FunctionType) -> Iterator[Any]:
    """Yield what a function was given when it was made: defaults, and what its closure holds."""
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for cell in function.__closure__ or ():
        try:
            held = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        if held is not function:
            yield held


_NONE = object()
