"""Functions that go on after a graph break: dynamo makes each out of the function's own code, and can make it again.

Nothing of such a function is carried but where in the code it goes on and with what on the stack: this process's dynamo
makes it, and keeps of it what it wants to know when it breaks once more.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import inspect
import json
import types
from typing import Any

from torch._dynamo.resume_execution import ContinueExecutionCache

from compile_client.traces.errors import NotSkippedError
from compile_client.traces.names import Names
from compile_wire.errors import MalformedError

_GIVEN_FIRST = ("code", "lineno", "init_offset")
_FIELDS = tuple(
    name for name in inspect.signature(ContinueExecutionCache.generate).parameters if name not in _GIVEN_FIRST
)
"""What dynamo tells such functions of one code apart by."""
_EMPTY = frozenset("setup_fn_target_offsets setup_fns stack_ctx_vars argnames_ctx_vars nested_code_objs".split())
"""Of them, what is not carried: contexts that are entered again, and functions around that were broken as well."""


def resumption(function: Any, code: types.CodeType) -> str:
    """Return as text where a function goes on in `code`; raise `NotSkippedError` where that is not told whole."""
    made = _code_of(function)
    keys = [key for key, one in (ContinueExecutionCache.cache.get(code) or {}).items() if one is made]
    if len(keys) != 1:
        raise NotSkippedError("graph_break", "dynamo breaks off inside a function that it has inlined")
    fields = dict(zip(_FIELDS, keys[0], strict=True))
    if any(fields.pop(name) for name in _EMPTY):
        raise NotSkippedError("graph_break", "dynamo breaks off inside a context manager")
    return json.dumps([made.co_firstlineno - code.co_firstlineno, Names().code(made), fields])


def resumed(data: str, code: types.CodeType, scope: dict[str, Any], name: str) -> Any:
    """Return this process's function for what `resumption` said, as dynamo installs it under a name."""
    lines, digest, fields = json.loads(data)
    if set(fields) != set(_FIELDS) - _EMPTY:
        raise MalformedError("a trace says too little, or too much, of where its function goes on")
    key = [_tuples(fields.get(field, ())) for field in _FIELDS]
    # Where the frame breaks off dynamo asks for contexts only, and there are none.
    made = ContinueExecutionCache.lookup(code, code.co_firstlineno + lines, fields["resume_offset"], *key)
    if Names().code(made) != digest:
        raise NotSkippedError("guard", f"{code.co_qualname} goes on in another way after a graph break")
    if not made.co_freevars:
        return types.FunctionType(made, scope, name)

    def closed(cells: tuple[types.CellType, ...]) -> types.FunctionType:
        return types.FunctionType(made, scope, name, None, cells)

    return closed


def _code_of(function: Any) -> types.CodeType:
    """Return the code of a resume function, or the code that dynamo's maker of one holds."""
    held = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    code = held["code"].cell_contents if "code" in held and "f_globals" in held else function.__code__
    return code if isinstance(code, types.CodeType) else function.__code__


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
