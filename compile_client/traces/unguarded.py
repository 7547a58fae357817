"""What dynamo makes a constant of although it is another in each process, and no guard says so.

Python draws a seed for the hashes of texts in each process, and with them the order of sets; objects have other
addresses in each. dynamo evaluates `hash`, `id` and loops over sets while it traces, and trusts that they stay.
"""

from __future__ import annotations

import dis
import os
import types

from compile_client.traces.errors import NotSkippedError

_SETS = frozenset({"BUILD_SET", "SET_ADD", "SET_UPDATE"})
_HASHED = frozenset({"set", "frozenset", "hash"})
_SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference"})
_LIMITS = frozenset({"getrecursionlimit", "get_int_max_str_digits"})
"""Of Python's, which dynamo reads as it traces."""
_KEYS = frozenset({"keys", "items"})
_SET_OPERATORS = frozenset({"&", "|", "^", "-"})


def hash_seed() -> str:
    """Return the seed of hashes where the user has fixed it, and "random" where each process draws its own."""
    seed = os.environ.get("PYTHONHASHSEED", "")
    return seed if seed.isdigit() else "random"


def check_code(code: types.CodeType) -> None:
    """Raise `NotSkippedError` where code may compute what is another in each process.

    It is looked for whether code makes or walks through a set, not whether the order shows; what only asks whether
    something is in a set of constants does not count.
    """
    names = set(code.co_names)
    if "id" in names:
        raise NotSkippedError("address", f"{code.co_qualname} asks for an object's id, another in each process")
    if found := names & _LIMITS:
        raise NotSkippedError("limit", f"{code.co_qualname} asks for Python's {min(found)}, which no guard is on")
    if hash_seed() != "random":
        return
    if said := _order(code, names):
        raise NotSkippedError("hash", f"{code.co_qualname} {said}, and Python's hashes are others in each process")
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            check_code(constant)


def _order(code: types.CodeType, names: set[str]) -> str:
    if used := names & (_HASHED | _SET_METHODS):
        return f"uses {min(used)}"
    before: dis.Instruction | None = None
    for instruction in dis.get_instructions(code):
        if instruction.opname in _SETS:
            return "makes a set"
        if before is not None and isinstance(before.argval, frozenset) and instruction.opname != "CONTAINS_OP":
            return "walks through a set"
        if instruction.opname == "BINARY_OP" and instruction.argrepr.rstrip("=") in _SET_OPERATORS and names & _KEYS:
            return "makes a set of keys"
        before = instruction
    return ""
