"""From what dynamo has just made of a function to a `Trace`, or to the reason why there is none."""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import os
import re
import sys
import types
from collections.abc import Mapping
from typing import Any

from compile_client.traces import guards
from compile_client.traces.bytecode import names_of, written
from compile_client.traces.entry import Trace
from compile_client.traces.errors import NotSkippedError
from compile_client.traces.facts import remembered_sizes, tensor_facts
from compile_client.traces.names import Names
from compile_client.traces.objects import placed
from compile_client.traces.resume import resumption
from compile_client.traces.tree import check_same, text
from compile_client.traces.unguarded import check_code
from compile_client.traces.values import Reader
from compile_torch.objects import torch_directory

_TORCH = torch_directory() + os.sep


def recorded_trace(
    code: types.CodeType,
    output: Any,
    bytecode: types.CodeType,
    manager: Any,
    graphs: Mapping[str, str | NotSkippedError],
    closure: Any,
) -> Trace:
    """Return the trace of one compile: `output` is dynamo's graph, `manager` the guards that torch made of it.

    `graphs` has the daemon's key of each graph, or why it cannot be had by a key. Raises `NotSkippedError`.
    """
    _check_output(output, bytecode)
    for one in (code, *output.tracing_context.traced_code):
        if not _of_torch(one):
            check_code(one)
    installed = _installed(code, output, bytecode, graphs)
    stand_ins = {name: f"@{number}" for number, (name, _, _) in enumerate(installed)}
    stated = guards.recorded(output, stand_ins)
    reader = Reader(stated.rows, {stand_in: name for name, stand_in in stand_ins.items()})
    frame = guards.Frame(code, output.local_scope, output.global_scope)
    names = Names()
    found, identities = guards.identities(stated, reader, frame, names)
    guards.check_constants(stated, reader, frame)
    again = guards.built(stated, reader, frame, None, None, output.name_of_builtins_dict_key_in_fglobals or "")
    check_same(manager, again)
    data, objects = written(bytecode, stand_ins)
    return Trace(
        function=f"{output.global_scope.get('__name__', '')}.{code.co_qualname}",
        bytecode=data,
        objects=[placed(value, names) for value in objects],
        installed=[[stand_ins[name], kind, detail] for name, kind, detail in installed],
        imports=sorted([alias, module] for alias, module in output.import_sources.items()),
        guards=stated,
        identities=[[_with_stand_ins(source, stand_ins), name] for source, name in identities],
        tree=text(again, found, stand_ins),
        tensors=tensor_facts(guards.tensors(stated, reader, frame)),
        inlined=_inlined(code, output.tracing_context.traced_code, names),
        sizes=remembered_sizes(code, closure),
    )


def _with_stand_ins(text: str, stand_ins: Mapping[str, str]) -> str:
    for name, stand_in in stand_ins.items():
        text = text.replace(name, stand_in)
    return text


def _check_output(output: Any, bytecode: types.CodeType) -> None:
    if output.torch_function_mode_stack:
        raise NotSkippedError("modes", "a mode of torch's functions is active")
    if output.torch_function_subclass_inlined:
        raise NotSkippedError("subclass", "tensors with a __torch_function__ of their own are among its inputs")
    if output.shape_env.specializations or output.shape_env.guards:
        raise NotSkippedError("dynamic", "its sizes are not all fixed")
    if "store_user_object_weakrefs" in names_of(bytecode):
        raise NotSkippedError("value", "streams, or other objects of the user's, are handed to its graph")


def _installed(
    code: types.CodeType, output: Any, bytecode: types.CodeType, graphs: Mapping[str, str | NotSkippedError]
) -> list[tuple[str, str, str]]:
    """Return [name, kind, detail] of each global that dynamo installed, in an order that is the same each time."""
    used = names_of(bytecode)
    made = []
    for name in output.installed_globals:
        value = output.global_scope.get(name)
        if name.startswith("__compiled_fn"):
            if name not in used:
                continue
            key = graphs.get(name, NotSkippedError("uncacheable", "a graph of it has no key"))
            if isinstance(key, NotSkippedError):
                raise key
            made.append((name, "graph", key))
        elif name == output.name_of_builtins_dict_key_in_fglobals:
            made.append((name, "builtins", ""))
        elif name.startswith("___unnamed_scope"):
            made.append((name, "scope", _owner(value)))
        elif name.startswith("__resume_at"):
            made.append((name, "resume", resumption(value, code)))
        else:
            raise NotSkippedError("global", f"its bytecode uses a global that dynamo made: {_without_numbers(name)}")
    if sum(kind == "builtins" for _, kind, _ in made) > 1:
        raise NotSkippedError("global", "dynamo installed Python's builtins twice")
    return sorted(made, key=lambda one: (one[1], one[2], _without_numbers(one[0])))


def _without_numbers(name: str) -> str:
    return re.sub(r"_[0-9a-f]{4,}|_c?\d+", "", name)


def _owner(scope: Any) -> str:
    """Return the named tuple whose constructor has these globals."""
    for cls in tuple.__subclasses__():
        if (
            getattr(cls.__new__, "__globals__", None) is scope
            and owner_scope(f"{cls.__module__}:{cls.__qualname__}") is scope
        ):
            return f"{cls.__module__}:{cls.__qualname__}"
    raise NotSkippedError("global", "it runs code whose globals have no name")


def owner_scope(owner: str) -> Any:
    """Return the globals of a named tuple's constructor; None where there is no such class."""
    module, _, qualified = owner.partition(":")
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    return getattr(getattr(found, "__new__", None), "__globals__", None)


def _inlined(entry: types.CodeType, traced: list[types.CodeType], names: Names) -> list[list[str]]:
    """Return [module, qualified name, digest] of inlined code that no name stands for; torch's own is known."""
    names.code(entry)
    found = []
    for code in traced:
        if code in names.codes or _of_torch(code):
            continue
        module = _module_of(code)
        if not module or live_code(module, code.co_qualname) is not code:
            raise NotSkippedError("inlined", f"{code.co_qualname} is part of it, and is not found by a name")
        found.append([module, code.co_qualname, names.code(code)])
    return sorted(found)


def _of_torch(code: types.CodeType) -> bool:
    return code.co_filename.startswith(_TORCH)


def _module_of(code: types.CodeType) -> str:
    for name, module in list(sys.modules.items()):
        if getattr(module, "__file__", None) == code.co_filename:
            return name
    return ""


def live_code(module: str, qualified: str) -> types.CodeType | None:
    """Return the code of a function, also of one inside a function, by its names; None where it is not there."""
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        if part == "<locals>":
            continue
        if isinstance(found, types.CodeType):
            inside = [one for one in found.co_consts if isinstance(one, types.CodeType) and one.co_name == part]
            found = inside[0] if len(inside) == 1 else None
        else:
            found = vars(found).get(part) if isinstance(found, (types.ModuleType, type)) else None
            if isinstance(found, (staticmethod, classmethod)):
                found = found.__func__
            found = getattr(found, "fget", found) if isinstance(found, property) else found
            found = getattr(found, "__wrapped__", found)
            found = getattr(found, "__code__", found)
    return found if isinstance(found, types.CodeType) else None
