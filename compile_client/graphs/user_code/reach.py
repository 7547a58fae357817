"""What a function of the user's leads to when it is called: code and values, as one digest.

A function that runs while a graph is compiled decides what the graph becomes, and with it everything that the function
reads: its code, defaults and closure, globals by name, what modules hold under the names that it uses, objects'
attributes, environment variables. All of that is followed; file names, line numbers and comments are not in it.

Guarantee: where the value of something cannot be read (a generator, a C object, a file), or not all of it (`eval`, the
time, an environment variable by a computed name), `CannotTellError` says what. Nothing of the user's is called.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import builtins
import collections
import contextvars
import copyreg
import enum
import functools
import hashlib
import importlib.util
import logging
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from compile_client.graphs.user_code.library_code import is_librarys_class, replaced
from compile_client.graphs.user_code.reach_names import (
    HARMLESS_OF_OS,
    IMPURE_BUILTINS,
    IMPURE_MODULES,
    binary_digest,
    environment_reads,
    is_versioned_module,
    is_versioned_type,
    names_of,
)

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented), range, slice)
_CONTAINERS = (list, tuple, collections.deque)
_CLASS_NOISE = frozenset(
    "__module__ __doc__ __dict__ __weakref__ __qualname__ __firstlineno__ __static_attributes__ __annotations__ "
    "__annotate__ __annotate_func__ __annotations_cache__ __parameters__ __abstractmethods__ _abc_impl "
    "_autograd_function_id".split()  # a number that counts a process's autograd functions
)
_OF_DATACLASSES = frozenset("__repr__ __hash__ __eq__ __dataclass_params__ __dataclass_fields__ __match_args__".split())
_MAX_VISITED = 20_000
_MAX_TENSOR_BYTES = 1 << 20


_NOTED_IN_CELLS = frozenset({("torch.library", "_check_pystubs_once.<locals>.inner", "checked")})
"""Module, function and cell in which torch notes a use: another after a compile than where its result was found."""

_NO_PARTS = frozenset({"__wrapped__", "__dynamo_disable"})
"""Attributes of a function that are not of what it does; the second is where torch keeps what it once made of it."""


class CannotTellError(Exception):
    """Something that a function leads to cannot be read; the text says what."""


class Reach:
    """Collects what values lead to. `operator` is told the qualified names of operators of the user's that are met."""

    def __init__(self, operator: Callable[[str], None], own_operator: Callable[[str], bool]) -> None:
        self._operator = operator
        self._own_operator = own_operator
        self._numbers: dict[int, int] = {}
        self._kept: list[Any] = []
        self._hash = hashlib.sha256()

    def add(self, what: str, value: Any) -> None:
        """Follow a value; raise `CannotTellError` where it, or something that it leads to, cannot be read."""
        self._say(what)
        waiting: list[Any] = [iter([value])]
        # A stack of iterators in place of recursion: users' structures may be deep.
        while waiting:
            found = next(waiting[-1], _END)
            if found is _END:
                waiting.pop()
                continue
            parts = self._visited(found)
            if parts is not None:
                waiting.append(iter(parts))

    def digest(self) -> str:
        """Return the digest of everything so far."""
        return self._hash.hexdigest()

    def _say(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self._hash.update(f"{len(data)}:".encode() + data)

    def _visited(self, value: Any) -> Iterable[Any] | None:
        """Say what the value is; return what is to be followed of it."""
        if isinstance(value, _Said):
            self._say(value.text)
            return None
        if type(value) in _PLAIN:
            self._say(f"{type(value).__name__} {value!r}")
            return None
        if id(value) in self._numbers:
            self._say(f"again {self._numbers[id(value)]}")
            return None
        if len(self._numbers) >= _MAX_VISITED:
            raise CannotTellError(f"more than {_MAX_VISITED} objects are reached")
        self._numbers[id(value)] = len(self._numbers)
        self._kept.append(value)
        return list(self._parts(value))

    def _parts(self, value: Any) -> Iterator[Any]:
        kind = type(value)
        if isinstance(value, CodeType):
            yield from self._code(value)
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, (BuiltinFunctionType, types.MethodWrapperType)):
            yield from self._builtin(value)
        elif isinstance(value, MethodType):
            yield from (_Said("method"), value.__func__, value.__self__)
        elif isinstance(value, functools.partial):
            yield from (_Said("partial"), value.func, value.args, value.keywords)
        elif isinstance(value, (staticmethod, classmethod)):
            yield from (_Said(kind.__name__), value.__func__)
        elif isinstance(value, property):
            yield from (_Said("property"), value.fget, value.fset)
        elif isinstance(value, functools._lru_cache_wrapper):
            if value.cache_info().currsize:
                raise CannotTellError(f"{_name(value)} remembers results (functools.cache), which cannot be read")
            yield from (_Said("cached"), value.__wrapped__)
        elif isinstance(value, ModuleType):
            if not is_versioned_module(value):
                raise CannotTellError(f"the whole module {value.__name__} is handed around")
            yield _Said(f"module {value.__name__}")
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, enum.Enum):
            yield from (_Said(f"member {value.name}"), kind, value.value)
        else:
            yield from self._data(value)

    def _code(self, code: CodeType) -> Iterator[Any]:
        shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & 0x2F)
        yield _Said(f"code {shape} {code.co_code.hex()} {code.co_names} {code.co_freevars} {len(code.co_cellvars)}")
        for constant in code.co_consts:
            yield constant if not isinstance(constant, frozenset) else sorted(constant, key=repr)

    def _function(self, function: FunctionType) -> Iterator[Any]:
        module = function.__module__ or ""
        if is_versioned_module(module) and function.__globals__.get("__name__") == module:
            # A library's own: its version is in the environment. What it was given by the user is not.
            yield _Said(f"function {module}.{function.__qualname__}")
            yield from self._given(function)
            return
        yield from (_Said("function"), function.__code__)
        yield from self._given(function)
        used = names_of(function.__code__)
        for text in environment_reads(function, CannotTellError):
            yield _Said(text)
        for name in used.imports:
            yield from self._imported(name, function, used.attributes)
        for name in used.globals:
            if name in function.__globals__:
                yield _Said(f"global {name}")
                yield from self._held(function.__globals__[name], name, used.attributes)
            elif name in IMPURE_BUILTINS:
                raise CannotTellError(f"{_name(function)} calls {name}()")
            elif name == "getattr" and any(
                isinstance(held := function.__globals__.get(other), ModuleType) and not is_versioned_module(held)
                for other in used.globals
            ):
                raise CannotTellError(f"{_name(function)} reads a module's attribute by a computed name")
            else:
                yield _Said(f"builtin {name} {hasattr(builtins, name)}")
                yield from self._replaced(builtins, (name,))
        # Methods of tensors are called by their names alone.
        yield from self._replaced(_tensor(), used.attributes)
        self._mention_operators(used.attributes)

    def _given(self, function: FunctionType) -> Iterator[Any]:
        yield from (function.__defaults__, function.__kwdefaults__)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            if (function.__globals__.get("__name__"), function.__qualname__, name) in _NOTED_IN_CELLS:
                continue
            yield _Said(f"cell {name}")
            try:
                held = cell.cell_contents
            except ValueError:
                yield _Said("empty")
                continue
            yield from self._held(held, name, names_of(function.__code__).attributes)
        yield {key: value for key, value in vars(function).items() if key not in _NO_PARTS}

    def _imported(self, name: str, function: FunctionType, attributes: Iterable[str]) -> Iterator[Any]:
        """Return what an import inside of a function brings."""
        package = function.__globals__.get("__package__") or ""
        try:
            full = importlib.util.resolve_name(name, package)
        except ImportError:
            full = name
        module = sys.modules.get(full)
        if module is None and not is_versioned_module(full):
            raise CannotTellError(f"{_name(function)} imports {full}, which is not imported yet")
        yield _Said(f"import {name}")
        if module is not None:
            yield from self._held(module, name, attributes)

    def _held(self, value: Any, name: str, attributes: Iterable[str]) -> Iterator[Any]:
        """Return what a name stands for; of a module, what it holds under the names that the code uses."""
        if not isinstance(value, ModuleType):
            yield value
            return
        root = value.__name__.partition(".")[0]
        if root in IMPURE_MODULES:
            # Of `os`, the environment is looked at by itself.
            if root != "os" or (set(attributes) & set(dir(value))) - HARMLESS_OF_OS:
                raise CannotTellError(f"the module {value.__name__} is used, whose answers change")
            yield _Said("module os")
        elif is_versioned_module(value):
            yield _Said(f"module {value.__name__}")
            yield from self._replaced(value, attributes)
        else:
            yield _Said(f"module {name}")
            for attribute in attributes:
                if attribute in vars(value):
                    yield _Said(attribute)
                    yield from self._held(vars(value)[attribute], attribute, attributes)

    def _replaced(self, holder: ModuleType | type, attributes: Iterable[str]) -> Iterator[Any]:
        """Return what the user may have put into a library's module, or into a class, under names that code uses."""
        for where, held in replaced(holder, tuple(attributes)):
            yield from (_Said(f"in {where}"), held)

    def _builtin(self, value: Any) -> Iterator[Any]:
        home = getattr(value, "__self__", None)
        if isinstance(home, ModuleType) or home is None:
            module = str(getattr(value, "__module__", None) or getattr(home, "__name__", ""))
            root = module.partition(".")[0]
            if root in IMPURE_MODULES or (root == "builtins" and value.__name__ in IMPURE_BUILTINS):
                raise CannotTellError(f"{module}.{value.__name__}() is called, whose answers change")
            yield _Said(f"builtin {module}.{value.__qualname__}")
            if not is_versioned_module(module):
                yield _Said(self._binary(module, value))
            return
        yield from (_Said(f"method {value.__name__} of"), home)

    def _binary(self, module: str, value: Any) -> str:
        if not (found := binary_digest(module)):
            raise CannotTellError(f"{module}.{value.__name__} is not written in Python, and has no file to look at")
        return found

    def _class(self, kind: type) -> Iterator[Any]:
        # A class that a library makes while it runs may hold what it was given by the user.
        if is_librarys_class(kind):
            if kind.__module__.partition(".")[0] in IMPURE_MODULES:
                raise CannotTellError(f"{kind.__module__}.{kind.__qualname__} is used, whose answers change")
            yield _Said(f"class {kind.__module__}.{kind.__qualname__}")
            return
        yield from (_Said("class"), *kind.__bases__)
        if not is_versioned_type(type(kind)):
            yield type(kind)
        for name, value in sorted(vars(kind).items()):
            # What a dataclass says of itself belongs to Python; its fields are looked at by themselves.
            noise = name in _CLASS_NOISE or (name in _OF_DATACLASSES and "__dataclass_params__" in vars(kind))
            if not noise and not isinstance(value, _DESCRIPTORS):
                yield from (_Said(name), value)

    def _data(self, value: Any) -> Iterator[Any]:
        kind = type(value)
        if isinstance(value, (dict, types.MappingProxyType, Mapping)) and _is_known(kind):
            yield _Said(f"map {kind.__name__} {len(value)}")
            yield from (part for item in value.items() for part in item)
            if isinstance(value, collections.defaultdict):
                yield value.default_factory
        elif isinstance(value, _CONTAINERS) and _is_known(kind):
            yield _Said(f"{kind.__name__} {len(value)}")
            yield from value
        elif kind in {set, frozenset}:
            yield _Said(f"set {len(value)}")
            yield from sorted(value, key=_order)
        elif isinstance(value, contextvars.ContextVar):
            yield from (_Said("context variable"), value.get(None))
        elif (text := self._library(value)) is not None:
            yield _Said(text)
        else:
            yield from self._object(value)

    def _library(self, value: Any) -> str | None:
        """Return what a value of torch's, numpy's or Triton's is, as text; None for anything else."""
        import torch

        if isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
            return str(value)
        if isinstance(value, torch._ops.OpOverload):
            self._mention(value._name)
            return f"operator {value._name}"
        if isinstance(value, torch._ops.OpOverloadPacket):
            self._mention(value._qualified_op_name)
            return f"operator {value._qualified_op_name}"
        if type(value).__name__ == "CustomOpDef" and hasattr(value, "_qualname"):
            self._mention(value._qualname)
            return f"operator {value._qualname}"
        if isinstance(value, torch.Tensor):
            plain = value.device.type == "cpu" and value.layout is torch.strided and type(value) in _TENSORS()
            if not plain or value.numel() * value.element_size() > _MAX_TENSOR_BYTES:
                raise CannotTellError(f"a tensor {tuple(value.shape)} on {value.device} is used as a constant")
            bits = value.detach().contiguous().view(-1).view(torch.uint8) if value.numel() else value.detach()
            content = hashlib.sha256(bytes(bits.tolist())).hexdigest() if value.numel() else ""
            return f"tensor {value.dtype} {tuple(value.shape)} {value.stride()} {value.requires_grad} {content}"
        if type(value).__module__ == "numpy" and hasattr(value, "tobytes"):
            if value.dtype.hasobject or value.nbytes > _MAX_TENSOR_BYTES:
                raise CannotTellError(f"a numpy array of {value.nbytes} bytes is used as a constant")
            return f"numpy {value.dtype.str} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
        return None

    def _object(self, value: Any) -> Iterator[Any]:
        kind = type(value)
        if kind.__module__.startswith("triton.") and hasattr(value, "fn"):
            yield from (_Said(f"kernel {kind.__name__}"), value.fn, getattr(value, "configs", None))
            return
        if isinstance(value, logging.Logger):
            yield _Said(f"logger {value.name}")
            return
        if kind.__module__.partition(".")[0] in IMPURE_MODULES:
            raise CannotTellError(f"a {kind.__module__}.{kind.__qualname__} is used, whose state changes")
        yield from (_Said("object"), kind)
        if is_versioned_type(kind) and not hasattr(value, "__dict__"):
            yield from self._reduced(value)
            return
        for base in kind.__mro__:
            if base in _BUILTIN_BASES:
                yield base(value)
            elif not base.__flags__ & _HEAP_TYPE and base is not object and not _is_known(base):
                raise CannotTellError(f"a {kind.__qualname__} is used, whose base {base.__name__} cannot be read")
        yield dict(sorted(getattr(value, "__dict__", {}).items(), key=lambda item: str(item[0])))
        for name in sorted({name for base in kind.__mro__ for name in _slots(base)}):
            if hasattr(value, name):
                yield from (_Said(name), getattr(value, name))

    def _reduced(self, value: Any) -> Iterator[Any]:
        """Return the state of an object of a library's class, as the library itself would pickle it."""
        import torch

        reduce = copyreg.dispatch_table.get(type(value))
        if isinstance(value, torch.Generator):
            raise CannotTellError("a torch.Generator is used, whose state changes with every number")
        try:
            state = reduce(value) if reduce is not None else value.__reduce_ex__(2)
        except Exception:  # noqa: BLE001 - whatever keeps it from being pickled keeps us from reading it
            kind = type(value)
            raise CannotTellError(
                f"a {kind.__module__}.{kind.__qualname__} is used, whose state cannot be read"
            ) from None
        if isinstance(state, str):
            yield _Said(state)
            return
        for part in state:
            yield list(part) if isinstance(part, Iterator) else part

    def _mention(self, name: str) -> None:
        plain = name.partition(".")[0]
        if self._own_operator(plain):
            self._operator(plain)

    def _mention_operators(self, names: Iterable[str]) -> None:
        """Note the operators that code calls as `torch.ops.space.name`: only their names are there."""
        known = list(names)
        if "ops" in known:
            for space in known:
                for name in known:
                    if space != name and self._own_operator(f"{space}::{name}"):
                        self._operator(f"{space}::{name}")


class _Said:
    """Text that is part of the digest as it stands."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


_END = object()
_HEAP_TYPE = 1 << 9
_BUILTIN_BASES = (dict, list, tuple, set, frozenset, str, bytes, int, float, complex)
_DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType)


def _tensor() -> type:
    import torch

    return torch.Tensor


@functools.cache
def _TENSORS() -> frozenset[type]:  # noqa: N802 - a constant that needs torch
    import torch

    return frozenset({torch.Tensor, torch.nn.Parameter})


def _is_known(kind: type) -> bool:
    return kind.__module__ in {"builtins", "collections", "types"}


def _slots(base: type) -> list[str]:
    found = vars(base).get("__slots__", ())
    names = [found] if isinstance(found, str) else list(found)
    return [name for name in names if name not in {"__dict__", "__weakref__"}]


def _order(value: Any) -> tuple[str, str]:
    return type(value).__name__, repr(value)


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", None) or type(value).__qualname__)
