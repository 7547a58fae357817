"""Live objects among the constants of dynamo's bytecode, as places: where each process finds its own.

A place is a module and a qualified name; beside it stands the object's name (`names`), which must be the same here.
"""

from __future__ import annotations

import sys
import types
from typing import Any

from compile_client.traces.errors import NotSkippedError
from compile_client.traces.names import Names


def placed(value: Any, names: Names) -> list[str]:
    """Return [module, qualified name, name] of an object; raise `NotSkippedError` where it is not found there."""
    if isinstance(value, types.ModuleType):
        place = [value.__name__, ""]
    elif isinstance(value, types.MethodType) and isinstance(value.__self__, type):
        place = [value.__self__.__module__, f"{value.__self__.__qualname__}.{value.__name__}"]
    elif isinstance(value, (type, types.FunctionType)):
        place = [value.__module__, value.__qualname__]
    else:
        raise NotSkippedError("bytecode", f"its bytecode holds a {type(value).__qualname__}, which has no name")
    # A bound method is made anew each time that it is looked at, and is equal to the one before.
    found = _found(*place)
    if type(found) is not type(value) or found != value:
        raise NotSkippedError("bytecode", f"its bytecode holds {'.'.join(place)}, which is not found by that name")
    return [*place, _name(value, names)]


def live_objects(places: list[list[str]], names: Names) -> list[Any]:
    """Return the objects in these places; raise `NotSkippedError` where one is another than it was."""
    found = []
    for module, qualified, name in places:
        value = _found(module, qualified)
        if value is None or _name(value, names) != name:
            raise NotSkippedError("guard", f"{module}.{qualified}, which its bytecode holds, is another here")
        found.append(value)
    return found


def _found(module: str, qualified: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in filter(None, qualified.split(".")):
        found = getattr(found, part, None)
    return found


def _name(value: Any, names: Names) -> str:
    where = "a constant of its bytecode"
    if isinstance(value, types.MethodType):
        return f"method {names.of(value.__self__, where)} {names.of(value.__func__, where)}"
    return names.of(value, where)
