"""dynamo's bytecode as bytes: with stand-ins for the globals that dynamo installed, and without the user's paths.

dynamo also writes live objects among the constants (the constructor of a named tuple). Such an object is written as its
place: where the next process finds its own (`objects`).
"""

from __future__ import annotations

import marshal
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from compile_client.traces.errors import NotSkippedError
from compile_wire.errors import MalformedError

_NOWHERE = "?"
_OBJECT = "\0object"
"""Begins the constant that stands for an object: (it, the object's number)."""


def written(code: types.CodeType, names: Mapping[str, str]) -> tuple[bytes, list[Any]]:
    """Return the code as bytes, and the objects among its constants; `names` has what stands for dynamo's globals."""
    found: list[Any] = []

    def stand_in(constant: Any) -> Any:
        if type(constant) is tuple and constant[:1] == (_OBJECT,):
            raise NotSkippedError("bytecode", f"the bytecode of {code.co_qualname} holds what stands for another thing")
        if not isinstance(constant, (type, types.FunctionType, types.MethodType, types.ModuleType)):
            return constant
        found.append(constant)
        return (_OBJECT, len(found) - 1)

    try:
        return marshal.dumps(_renamed(code, names, stand_in, _NOWHERE, 1)), found
    except ValueError as error:
        raise NotSkippedError(
            "bytecode", f"the bytecode of {code.co_qualname} holds what Python cannot write"
        ) from error


def read(
    data: bytes, names: Mapping[str, str], original: types.CodeType, objects: Sequence[Any] | None = None
) -> types.CodeType:
    """Return the code again, with this process's names, and in the file and on the lines of the original.

    Without `objects`, what stands for each of them stays in its place.
    """

    def own(constant: Any) -> Any:
        if objects is None or type(constant) is not tuple or constant[:1] != (_OBJECT,):
            return constant
        try:
            return objects[constant[1]]
        except (IndexError, TypeError) as error:
            raise MalformedError("a trace's bytecode names an object that it does not have") from error

    try:
        code = marshal.loads(data)  # noqa: S302 - signed, and verified before it comes here
    except (ValueError, EOFError, TypeError) as error:
        raise MalformedError("a trace's bytecode cannot be read") from error
    if not isinstance(code, types.CodeType):
        raise MalformedError("a trace's bytecode is no code")
    return _renamed(code, names, own, original.co_filename, original.co_firstlineno)


def names_of(code: types.CodeType) -> set[str]:
    """Return the names of globals and attributes that code uses, with those of the code inside it."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= names_of(constant)
    return found


def _renamed(
    code: types.CodeType, names: Mapping[str, str], constant: Callable[[Any], Any], file: str, line: int
) -> types.CodeType:
    return code.replace(
        co_names=tuple(names.get(name, name) for name in code.co_names),
        co_consts=tuple(
            _renamed(one, names, constant, file, line) if isinstance(one, types.CodeType) else constant(one)
            for one in code.co_consts
        ),
        co_filename=file,
        co_firstlineno=line,
    )
