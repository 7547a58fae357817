"""dynamo's bytecode as bytes: with stand-ins for the globals that dynamo installed, and without the user's paths."""

from __future__ import annotations

import marshal
import types
from collections.abc import Mapping

from compile_client.traces.errors import NotSkippedError
from compile_wire.errors import MalformedError

_NOWHERE = "?"


def written(code: types.CodeType, names: Mapping[str, str]) -> bytes:
    """Return the code as bytes; `names` has what stands for each global of dynamo's."""
    try:
        return marshal.dumps(_renamed(code, names, _NOWHERE, 1))
    except ValueError as error:
        raise NotSkippedError(
            "bytecode", f"the bytecode of {code.co_qualname} holds what Python cannot write"
        ) from error


def read(data: bytes, names: Mapping[str, str], original: types.CodeType) -> types.CodeType:
    """Return the code again, with this process's names, and in the file and on the lines of the original."""
    try:
        code = marshal.loads(data)  # noqa: S302 - signed, and verified before it comes here
    except (ValueError, EOFError, TypeError) as error:
        raise MalformedError("a trace's bytecode cannot be read") from error
    if not isinstance(code, types.CodeType):
        raise MalformedError("a trace's bytecode is no code")
    return _renamed(code, names, original.co_filename, original.co_firstlineno)


def names_of(code: types.CodeType) -> set[str]:
    """Return the names of globals and attributes that code uses, with those of the code inside it."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= names_of(constant)
    return found


def _renamed(code: types.CodeType, names: Mapping[str, str], file: str, line: int) -> types.CodeType:
    return code.replace(
        co_names=tuple(names.get(name, name) for name in code.co_names),
        co_consts=tuple(
            _renamed(constant, names, file, line) if isinstance(constant, types.CodeType) else constant
            for constant in code.co_consts
        ),
        co_filename=file,
        co_firstlineno=line,
    )
