"""dynamo's sources, and the values in them and in guards, as plain data: closed lists, and never a pickle.

A *source* says how a value is reached from a frame: `L['self'].act`. Sources stand in one table and name the ones they
are built on by number, so that the data is as flat as the table.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import dataclasses
import enum
import math
from typing import Any

import torch
from torch._dynamo import source as sources
from torch._guards import Source

from compile_client.traces.errors import NotSkippedError
from compile_wire.errors import MalformedError

_PORTABLE = frozenset(
    "LocalSource GlobalSource WeakRefCallSource CallFunctionNoArgsSource AttrSource CellContentsSource "
    "GenericAttrSource TypeDictSource TypeMROSource LocalCellSource CodeSource ClosureSource GradSource "
    "ParamBufferSource UnspecializedParamBufferSource SkipGuardSource TensorPropertySource IndexedSource "
    "ConvertIntSource DefaultsSource GetItemSource ConstDictKeySource NonSerializableSetGetItemSource "
    "DictGetItemSource DictSubclassGetItemSource ListGetItemSource TupleIteratorGetItemSource "
    "NamedTupleFieldsSource DataclassFieldsSource TypeSource NNModuleSource UnspecializedNNModuleSource "
    "UnspecializedBuiltinNNModuleSource GlobalStateSource ImportSource ConstantSource CallMethodItemSource "
    "ShapeEnvSource".split()
)
"""Kinds of sources that mean the same in another process. All others have a reason of their own to be refused."""

_MAX_INT = 2**63


class Table:
    """Writes sources and values; `rows` is what becomes of the sources.

    `names` are globals that dynamo has installed, by the name that stands for each.
    """

    def __init__(self, names: dict[str, str]) -> None:
        self.rows: list[Any] = []
        self._names = names
        self._known: dict[Any, int] = {}

    def source(self, source: Any) -> int:
        """Return the number of a source; raise `NotSkippedError` for one that means nothing elsewhere."""
        if source in self._known:
            return self._known[source]
        kind = type(source).__name__
        if kind not in _PORTABLE or getattr(sources, kind, None) is not type(source):
            raise NotSkippedError("source", f"a guard is on a {kind}, which has no meaning in another process")
        fields = []
        for field in dataclasses.fields(source):
            value = getattr(source, field.name)
            if kind == "GlobalSource" and field.name == "global_name":
                value = self._names.get(value, value)
            fields.append([field.name, self.value(value, source.name)])
        self.rows.append([kind, fields])
        self._known[source] = len(self.rows) - 1
        return len(self.rows) - 1

    def value(self, value: Any, where: str) -> Any:
        """Return a value as data; raise `NotSkippedError` where it is of a kind that is not carried."""
        found: Any = value
        if value is None or type(value) in (bool, str, bytes):
            return value
        if type(value) is int and -_MAX_INT <= value < _MAX_INT:
            return value
        if type(value) is float and math.isfinite(value):
            return value
        if isinstance(value, Source):
            return ["source", self.source(value)]
        if type(value) in (tuple, list):
            return [type(value).__name__, *(self.value(item, where) for item in found)]
        if type(value) in (set, frozenset):
            return [type(value).__name__, *sorted((self.value(item, where) for item in found), key=repr)]
        if value is slice:
            return ["slice"]
        if isinstance(value, sources.TensorProperty):
            return ["property", value.name]
        if isinstance(value, torch.dtype):
            return ["dtype", str(value).removeprefix("torch.")]
        raise NotSkippedError("value", f"{where} is guarded by a {type(value).__name__}, which is not carried")


class Reader:
    """Makes sources of a table again; `names` are this process's globals, by the name that stands for each.

    Raises `MalformedError` for what no `Table` writes.
    """

    def __init__(self, rows: list[Any], names: dict[str, str]) -> None:
        self._names = names
        self._sources: list[Any] = []
        for row in rows:
            self._sources.append(self._source(row))

    def source(self, number: Any) -> Any:
        """Return the source of that number."""
        if type(number) is not int or not 0 <= number < len(self._sources):
            raise MalformedError("a trace names a source that it does not have")
        return self._sources[number]

    def _source(self, row: Any) -> Any:
        kind, fields = row
        if kind not in _PORTABLE:
            raise MalformedError(f"a trace has a source of kind {kind!r:.40}")
        cls = getattr(sources, kind)
        known = {field.name for field in dataclasses.fields(cls)}
        made = cls.__new__(cls)
        for name, data in fields:
            if name not in known:
                raise MalformedError(f"a {kind} has no field {name!r:.40}")
            value = self.value(data)
            if kind == "GlobalSource" and name == "global_name":
                value = self._names.get(value, value)
            object.__setattr__(made, name, value)
        return made

    def value(self, data: Any) -> Any:
        """Return the value that was written as `data`."""
        if not isinstance(data, list):
            return data
        kind, *rest = data
        match kind:
            case "source":
                return self.source(rest[0])
            case "tuple" | "list" | "set" | "frozenset":
                made = {"tuple": tuple, "list": list, "set": set, "frozenset": frozenset}[kind]
                return made(self.value(item) for item in rest)
            case "slice":
                return slice
            case "property":
                return sources.TensorProperty[rest[0]]
            case "dtype":
                dtype = getattr(torch, rest[0], None)
                if isinstance(dtype, torch.dtype):
                    return dtype
        raise MalformedError(f"a trace has a value of kind {kind!r:.40}")


def is_plain(value: Any) -> bool:
    """Whether a value is told whole by its `repr`: what a guard compares with `==` must be."""
    if value is None or type(value) in (bool, int, str, bytes, complex, range, slice, type(Ellipsis)):
        return True
    if type(value) is float:
        return math.isfinite(value)
    if type(value) in (tuple, list, set, frozenset, torch.Size):
        return all(is_plain(item) for item in value)
    if type(value) is dict:
        return all(is_plain(key) and is_plain(item) for key, item in value.items())
    if isinstance(value, enum.Enum):
        return is_plain(value.value)
    return isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format))
