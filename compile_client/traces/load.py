"""A recorded trace on a live frame: compared with it, its globals installed, its guards made by torch."""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch._dynamo import convert_frame
from torch._dynamo.bytecode_transformation import unique_id
from torch._dynamo.output_graph import get_builtins_dict
from torch._dynamo.types import GuardedCode
from torch._dynamo.utils import CleanupHook, CleanupManager, orig_code_map

from compile_client.traces import guards
from compile_client.traces.bytecode import read
from compile_client.traces.errors import NotSkippedError
from compile_client.traces.facts import differing_fact, remember_sizes, tensor_facts
from compile_client.traces.names import Names
from compile_client.traces.objects import live_objects
from compile_client.traces.record import live_code, owner_scope
from compile_client.traces.resume import resumed
from compile_client.traces.tree import text
from compile_client.traces.values import Reader

if TYPE_CHECKING:
    import types

    from compile_client.traces.entry import Trace

_PREFIXES = {
    "graph": "__compiled_fn",
    "builtins": "__builtins_dict__",
    "scope": "___unnamed_scope",
    "resume": "__resume_at",
}
_DIGEST = re.compile("[0-9a-f]{32}")


@dataclass(slots=True)
class Called:
    """The frame that dynamo was called for, and what it was given beside it."""

    code: types.CodeType
    scope: dict[str, Any]
    local: dict[str, Any]
    closure: Any
    cache_entries: Any
    compile_id: Any


class Fitting:
    """A trace that fits a frame: its guards are made and hold; nothing of it is in force yet."""

    def __init__(self, trace: Trace, called: Called) -> None:
        """Raise `NotSkippedError` where it does not fit, and say which guard that is."""
        self.trace = trace
        self._called = called
        self._names = {
            stand_in: unique_id(_PREFIXES[kind], with_uuid=kind == "graph") for stand_in, kind, _ in trace.installed
        }
        self._objects: list[Any] = []
        self._hooks: list[CleanupHook] = []
        with self._installed():
            self._manager = self._guards()

    def in_force(self, load_graph: Callable[[str], Any]) -> GuardedCode:
        """Load its graphs, install its globals, and return what dynamo hands to Python's interpreter."""
        called = self._called
        made: dict[str, Any] = {}
        for stand_in, kind, detail in self.trace.installed:
            if kind == "graph":
                made[stand_in] = load_graph(detail)
            elif kind == "resume":
                made[stand_in] = resumed(detail, called.code, called.scope, self._names[stand_in])
        code = read(self.trace.bytecode, self._names, called.code, self._objects)
        try:
            self._install(made)
            remember_sizes(called.code, called.closure, self.trace.sizes)
        except BaseException:
            self._remove()
            raise
        orig_code_map[code] = called.code
        convert_frame.output_codes.add(code)
        CleanupManager.instance[code] = self._hooks
        compile_id = called.compile_id
        return GuardedCode(code, self._manager, compile_id, f"Torch-Compiled Region: {compile_id}")

    def _guards(self) -> Any:
        trace, called = self.trace, self._called
        reader = Reader(trace.guards.rows, self._names)
        frame = guards.Frame(called.code, called.local, called.scope)
        facts = tensor_facts(guards.tensors(trace.guards, reader, frame))
        pairs = zip(trace.tensors, facts, strict=True)
        other = [
            f"{reader.source(here[0]).name} has {said}"
            for there, here in pairs
            if (said := differing_fact(there, here))
        ]
        if other:
            raise NotSkippedError("guard", other[0], distance=1000 * len(other))
        names = Names()
        found, identities = guards.identities(trace.guards, reader, frame, names)
        named = zip(trace.identities, identities, strict=True)
        renamed = [(source, then, now) for (_, then), (source, now) in named if then != now]
        for source, then, now in renamed:
            said = f"{source} is {_short(now, then)} here, and was {_short(then, now)}"
            raise NotSkippedError("guard", said, distance=100 * len(renamed))
        for module, qualified, digest in trace.inlined:
            code = live_code(module, qualified)
            if code is None or names.code(code) != digest:
                raise NotSkippedError("guard", f"{module}.{qualified}, which is part of it, has changed")
        self._objects = live_objects(trace.objects, names)
        builtins = next((self._names[stand_in] for stand_in, kind, _ in trace.installed if kind == "builtins"), "")
        manager = guards.built(trace.guards, reader, frame, called.cache_entries, None, builtins)
        tree = text(manager, found, {name: stand_in for stand_in, name in self._names.items()})
        lines = [(now, then) for now, then in zip(tree, trace.tree, strict=False) if now != then]
        for now, then in lines:
            said = f"{now.strip(' |+-')[:200]}, and was {then.strip(' |+-')[:200]}"
            raise NotSkippedError("guard", said, distance=len(lines))
        if len(tree) != len(trace.tree):
            raise NotSkippedError("guard", f"torch makes {len(tree)} lines of guards, and made {len(trace.tree)}")
        return manager

    @contextlib.contextmanager
    def _installed(self) -> Iterator[None]:
        """Install the globals that guards name, for as long as they are being made."""
        for alias, module in self.trace.imports:
            held = importlib.import_module(module)
            if self._called.scope.setdefault(alias, held) is not held:
                raise NotSkippedError("guard", f"the global {alias} is taken")
        self._install({})
        try:
            yield
        finally:
            self._remove()

    def _install(self, made: dict[str, Any]) -> None:
        scope = self._called.scope
        for stand_in, kind, detail in self.trace.installed:
            value = made.get(stand_in)
            if kind == "builtins":
                value = get_builtins_dict(scope)
            elif kind == "scope":
                value = owner_scope(detail)
            if value is not None:
                self._hooks.append(CleanupHook.create(scope, self._names[stand_in], value))
            elif kind == "scope":
                self._remove()
                raise NotSkippedError("guard", f"the class {detail} is not there")

    def _remove(self) -> None:
        while self._hooks:
            self._hooks.pop()()


def _short(name: str, other: str) -> str:
    """Return a name without its digest, unless that is all in which it differs."""
    bare, _, digest = name.rpartition(" ")
    if not _DIGEST.fullmatch(digest):
        return name
    return f"{bare} ({digest[:8]})" if bare == other.rpartition(" ")[0] else bare
