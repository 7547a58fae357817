"""Names of objects that a guard knows by their identity: what they are, said so that another process can compare.

A function's name is its module, its qualified name, and a digest of its code, its defaults and the constants of its
closure; a class's has a digest of what it and its bases define. What has no such name is refused.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import enum
import hashlib
import sys
import types
from typing import Any

import torch
from torch._dynamo import trace_rules

from compile_client.traces.errors import NotSkippedError
from compile_client.traces.values import is_plain

_BUILTIN_HOMES = (
    "builtins", "torch", "torch._C._VariableFunctions", "torch._C._nn", "torch._C._linalg", "torch._C._special",
    "torch._C._fft", "torch._C._sparse", "torch._C._nested", "torch._C", "math", "operator", "_operator", "itertools",
    "_functools",
)  # fmt: skip
_SINGLETONS = (None, True, False, Ellipsis, NotImplemented)
_OF_EVERY_CLASS = frozenset(
    "__dict__ __weakref__ __doc__ __module__ __annotations__ __abstractmethods__ _abc_impl __firstlineno__ "
    "__static_attributes__ __orig_bases__ __parameters__ __dataclass_fields__ __dataclass_params__".split()
)
_TREATMENTS = (
    "_allowed_callable_ids",
    "_disallowed_callable_ids",
    "_nonstrict_trace_callable_ids",
    "_leaf_function_ids",
)
_ASSUMED = "_dynamo_marked_constant"
"""`torch._dynamo.assume_constant_result` leaves this on a function."""
_MADE_BY_A_STATEMENT = 1 << 9
"""Python's `Py_TPFLAGS_HEAPTYPE`; Python's own classes, and torch's in C++, have it not."""
_MAX_DEPTH = 8


class Names:
    """Names objects, each once. Made anew for each comparison: functions and classes can be changed meanwhile."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[str, Any]] = {}
        self._open: set[int] = set()
        self.codes: set[types.CodeType] = set()
        """All code that stands behind the names given out, by way of digests."""

    def of(self, value: Any, where: str, depth: int = 0) -> str:
        """Return the name of an object that is reached as `where`; raise `NotSkippedError` if it has none."""
        known = self._known.get(id(value))
        if known is None:
            if id(value) in self._open:
                return "itself"
            if depth > _MAX_DEPTH:
                raise NotSkippedError("depth", f"{where or 'an object'} is made of functions nested too deep")
            self._open.add(id(value))
            try:
                name = self._name(value, where, depth) + _treatment(value)
            finally:
                self._open.discard(id(value))
            known = self._known[id(value)] = (name, value)
        return known[0]

    def code(self, code: types.CodeType) -> str:
        """Return a digest of what code does: without its file and its lines."""
        self.codes.add(code)
        digest = hashlib.sha256()
        for part in (
            code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags,
            code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_name, code.co_qualname,
            code.co_exceptiontable, [self._constant(constant) for constant in code.co_consts],
        ):  # fmt: skip
            digest.update(repr(part).encode() + b"\0")
        return digest.hexdigest()[:32]

    def function(self, function: types.FunctionType, depth: int = 0) -> str:
        """Return a digest of a function: its code, defaults, closure, and what decorators left on it."""
        parts: list[Any] = [self.code(function.__code__)]
        parts.append([self._inside(value, depth) for value in function.__defaults__ or ()])
        parts.append(
            sorted((name, self._inside(value, depth)) for name, value in (function.__kwdefaults__ or {}).items())
        )
        for cell in function.__closure__ or ():
            try:
                parts.append(self._inside(cell.cell_contents, depth))
            except ValueError:
                parts.append("empty")
        parts.append(sorted((name, self._inside(value, depth)) for name, value in vars(function).items()))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]

    def _constant(self, constant: Any) -> Any:
        if isinstance(constant, types.CodeType):
            return self.code(constant)
        if isinstance(constant, frozenset):
            return ["frozenset", *sorted(map(repr, constant))]
        return (type(constant).__name__, constant)

    def _inside(self, value: Any, depth: int) -> str:
        """Return what a function or class holds: whole where it is plain or has a name, else by its type.

        What dynamo reads of an object that has no name here, it guards by itself.
        """
        if is_plain(value):
            return (
                f"{type(value).__name__} {sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value!r}"
            )
        try:
            return self.of(value, "", depth + 1)
        except NotSkippedError as error:
            if error.reason in ("depth", "constant"):
                raise
        return f"a {type(value).__module__}.{type(value).__qualname__}"

    def _name(self, value: Any, where: str, depth: int) -> str:
        if any(value is one for one in _SINGLETONS):
            return repr(value)
        if isinstance(value, types.ModuleType):
            if sys.modules.get(value.__name__) is value:
                return f"module {value.__name__}"
        elif isinstance(value, types.CodeType):
            return f"code {value.co_qualname} {self.code(value)}"
        elif isinstance(value, type):
            return self._class(value, where, depth)
        elif isinstance(value, types.FunctionType):
            if getattr(value, _ASSUMED, False) and not str(value.__module__).startswith("torch."):
                raise NotSkippedError(
                    "constant", f"what {value.__qualname__} returns is assumed to be constant, in one process"
                )
            home = value.__globals__.get("__name__", "")
            return f"function {home}.{value.__qualname__} {self.function(value, depth)}"
        elif isinstance(value, enum.Enum) and isinstance(value.name, str):
            return f"{self.of(type(value), where, depth)} {value.name}"
        elif isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
            return repr(value)
        elif isinstance(value, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
            return f"operator {value}"
        elif name := _builtin(value):
            return name
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise NotSkippedError(
            "identity", f"{where or 'an object'} is guarded by its identity, and a {kind} has no name"
        )

    def _class(self, cls: type, where: str, depth: int) -> str:
        name = f"{cls.__module__}.{cls.__qualname__}"
        if cls.__module__ == "builtins" and not cls.__flags__ & _MADE_BY_A_STATEMENT:
            return f"class {name}"  # also those that are no global of Python's: NoneType, function
        if "<locals>" not in cls.__qualname__ and _found(cls.__module__, cls.__qualname__) is not cls:
            raise NotSkippedError(
                "identity", f"{where or 'an object'} has the class {name}, which is not found by that name"
            )
        parts: list[Any] = [f"{type(cls).__module__}.{type(cls).__qualname__}"]
        self._known[id(cls)] = (f"class {name}", cls)  # its methods may name it
        for base in cls.__mro__:
            if not base.__flags__ & _MADE_BY_A_STATEMENT:
                parts.append(f"{base.__module__}.{base.__qualname__}")
                continue
            held = [
                (key, self._member(value, depth)) for key, value in vars(base).items() if key not in _OF_EVERY_CLASS
            ]
            parts.append([f"{base.__module__}.{base.__qualname__}", sorted(held)])
        return f"class {name} {hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"

    def _member(self, value: Any, depth: int) -> str:
        if isinstance(value, (staticmethod, classmethod)):
            return f"{type(value).__name__} {self._inside(value.__func__, depth)}"
        if isinstance(value, property):
            return "property " + " ".join(self._inside(part, depth) for part in (value.fget, value.fset, value.fdel))
        return self._inside(value, depth)


def _treatment(value: Any) -> str:
    """Return how dynamo was told to treat a function (`allow_in_graph`, `disable`, ...): it is asked, not guarded."""
    marks = [name for name in _TREATMENTS if id(value) in getattr(trace_rules, name)]
    return f" {' '.join(marks)}" if marks else ""


def _found(module: str, qualified: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = vars(found).get(part) if isinstance(found, (types.ModuleType, type)) else None
    return found


def _builtin(value: Any) -> str:
    """Return the name of something written in C that is found where it says, or in one of torch's usual places."""
    owner = getattr(value, "__objclass__", None)
    if owner is None and isinstance(value, types.BuiltinFunctionType):
        owner = getattr(value, "__self__", None)
    name = getattr(value, "__name__", None)
    if not isinstance(name, str):
        return ""
    if isinstance(owner, type) and vars(owner).get(name) is value:
        return f"slot {owner.__module__}.{owner.__qualname__}.{name}"
    if not isinstance(value, types.BuiltinFunctionType):
        return ""
    for home in (getattr(value, "__module__", None), *_BUILTIN_HOMES):
        place = _place(home) if isinstance(home, str) else None
        if place is not None and getattr(place, name, None) is value:
            return f"builtin {home}.{name}"
    return ""


def _place(home: str) -> Any:
    if home in sys.modules:
        return sys.modules[home]
    parent, _, last = home.rpartition(".")
    return getattr(sys.modules.get(parent), last, None)
