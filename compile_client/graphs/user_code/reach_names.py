"""What code uses by name, and which names lead to libraries, to things that change, or to the environment."""

from __future__ import annotations

import dis
import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

VERSIONED = frozenset({"torch", "torchgen", "functorch", "triton", "numpy", "sympy", "mpmath", "scipy"})
"""Packages that are taken to do what their version says; torch's and Triton's sources are in the environment."""

IMPURE_BUILTINS = frozenset("open eval exec compile input __import__ globals locals vars id hash breakpoint".split())
IMPURE_MODULES = frozenset(
    "os time datetime random secrets uuid socket subprocess importlib io pathlib tempfile shutil threading "
    "multiprocessing asyncio weakref gc inspect ctypes pickle urllib http ssl sqlite3 _io _random _thread".split()
)
"""Modules of Python's that answer from outside of the program. Of `os`, its environment is looked at by itself."""

HARMLESS_OF_OS = frozenset("environ getenv path sep linesep name curdir fspath PathLike get join basename".split())

_STDLIB = frozenset(sys.stdlib_module_names)


@dataclass(frozen=True, slots=True)
class Names:
    """Lists the names that a piece of code, with the functions inside of it, uses."""

    globals: tuple[str, ...]
    attributes: tuple[str, ...]
    """Names of attributes, and texts that may be names of attributes."""
    imports: tuple[str, ...]
    """Modules that are imported inside of functions."""


@functools.lru_cache(4096)
def names_of(code: CodeType) -> Names:
    """Return what code uses by name."""
    used: set[str] = set()
    attributes: set[str] = set()
    imports: set[str] = set()
    for piece in pieces_of(code):
        for instruction in dis.get_instructions(piece):
            if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
                used.add(str(instruction.argval))
            elif instruction.opname == "IMPORT_NAME":
                imports.add(str(instruction.argval))
        attributes.update(piece.co_names)
        attributes.update(text for text in piece.co_consts if isinstance(text, str) and text.isidentifier())
    return Names(tuple(sorted(used)), tuple(sorted(attributes)), tuple(sorted(imports)))


def pieces_of(code: CodeType) -> Iterator[CodeType]:
    """Yield code, and that of the functions inside of it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from pieces_of(constant)


def is_versioned_module(module: ModuleType | str) -> bool:
    """Whether a module is Python's own or of a package that is taken to do what its version says."""
    return _is_versioned(module if isinstance(module, str) else module.__name__)


@functools.lru_cache(4096)
def _is_versioned(module: str) -> bool:
    root = module.partition(".")[0]
    return (root in VERSIONED or root in _STDLIB) and root not in {"__main__", ""}


def is_versioned_type(kind: type) -> bool:
    """Likewise for a class."""
    return is_versioned_module(kind.__module__ or "")


def binary_digest(module: str) -> str:
    """Return a digest of the file of a module that is not written in Python; empty where there is none."""
    path = getattr(sys.modules.get(module), "__file__", None) or ""
    return file_digest(path) if path.endswith((".so", ".pyd")) else ""


def file_digest(path: str) -> str:
    """Return a digest of a file's content; empty where it cannot be read."""
    try:
        return _digest(path, os.stat(path).st_mtime_ns)
    except (OSError, ValueError):
        return ""


@functools.lru_cache(1000)
def _digest(path: str, _changed_ns: int) -> str:
    return f"file {hashlib.sha256(Path(path).read_bytes()).hexdigest()}"


def environment_reads(function: FunctionType, error: Callable[[str], Exception]) -> list[str]:
    """Return "variable NAME = value" for each environment variable that the function's code reads by a plain name.

    Raises `error` where code reaches the environment and the name is not plain to see.
    """
    found: list[str] = []
    for piece in pieces_of(function.__code__):
        steps = [step for step in dis.get_instructions(piece) if step.opname not in _NOISE]
        for at, step in enumerate(steps):
            if not _reaches_environment(step, function):
                continue
            name = _plain_name(function, steps[at + 1 : at + 5])
            if name is None:
                raise error(f"{function.__qualname__} reads the environment by a computed name, or all of it")
            found.append(f"variable {name} = {os.environ.get(name)!r}")
    return found


_NOISE = frozenset({"PRECALL", "CACHE", "PUSH_NULL", "EXTENDED_ARG", "NOP", "RESUME"})


def _reaches_environment(step: dis.Instruction, function: FunctionType) -> bool:
    if step.opname in {"LOAD_ATTR", "LOAD_METHOD"}:
        return step.argval in {"environ", "environb", "getenv", "getenvb"}
    if step.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
        held = function.__globals__.get(str(step.argval))
        return held is os.environ or held is os.getenv
    return False


def _plain_name(function: FunctionType, steps: list[dis.Instruction]) -> str | None:
    """Return the name that `environ["NAME"]`, `environ.get("NAME", ...)` or `getenv("NAME", ...)` reads."""
    if steps and steps[0].opname in {"LOAD_ATTR", "LOAD_METHOD"} and steps[0].argval == "get":
        steps = steps[1:]
    if len(steps) < 2 or (name := _text(function, steps[0])) is None:
        return None
    used = steps[1:]
    if (
        used[0].opname in {"LOAD_CONST", "LOAD_GLOBAL", "LOAD_FAST"} and len(used) > 1
    ):  # what to take where it is not set
        used = used[1:]
    return name if used[0].opname in {"BINARY_SUBSCR", "KW_NAMES"} or used[0].opname.startswith("CALL") else None


def _text(function: FunctionType, step: dis.Instruction) -> str | None:
    if step.opname == "LOAD_CONST":
        return step.argval if isinstance(step.argval, str) else None
    if step.opname == "LOAD_GLOBAL":
        held = function.__globals__.get(str(step.argval))
        return held if isinstance(held, str) else None
    return None
