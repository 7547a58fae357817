"""What dynamo makes a constant of although it is another in each process, and no guard says so.

Python draws a seed for the hashes of texts in each process, and with them the order of sets; objects have other
addresses in each, whatever the seed. dynamo evaluates `hash`, `id` and loops over sets while it traces, and trusts that
they stay.
"""

from __future__ import annotations

import dis
import types

from compile_client.traces.errors import NotSkippedError

_SETS = frozenset({"BUILD_SET", "SET_ADD", "SET_UPDATE"})
_HASHED = frozenset({"set", "frozenset", "hash"})
_SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference"})
_LIMITS = frozenset({"getrecursionlimit", "get_int_max_str_digits"})
"""Of Python's, which dynamo reads as it traces."""
_KEYS = frozenset({"keys", "items"})
_SET_OPERATORS = frozenset({"&", "|", "^", "-"})


def check_code(code: types.CodeType) -> None:
    """Raise `NotSkippedError` where code may compute what is another in each process.

    It is looked for whether code makes or walks through a set, not whether the order shows; what only asks whether
    something is in a set of constants does not count.
    """
    if limits := _LIMITS.intersection(code.co_names):
        raise NotSkippedError("limit", f"{code.co_qualname} asks for Python's {min(limits)}, which no guard is on")
    before: dis.Instruction | None = None
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") and instruction.argval == "id":
            raise NotSkippedError("address", f"{code.co_qualname} asks for an object's id, another in each process")
        if said := _order(code, instruction, before):
            raise NotSkippedError("hash", f"{code.co_qualname} {said}, and hashes are others in each process")
        before = instruction
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            check_code(constant)


def _order(code: types.CodeType, instruction: dis.Instruction, before: dis.Instruction | None) -> str:
    """Return what an instruction has to do with hashes, or with an order that follows from them."""
    operation, name = instruction.opname, instruction.argval
    if operation in ("LOAD_GLOBAL", "LOAD_NAME") and name in _HASHED:
        return f"uses {name}"
    if operation in ("LOAD_ATTR", "LOAD_METHOD") and name in _SET_METHODS:
        return f"uses {name}"
    if operation in _SETS:
        return "makes a set"
    if before is not None and isinstance(before.argval, frozenset) and operation != "CONTAINS_OP":
        return "walks through a set"
    of_sets = operation == "BINARY_OP" and instruction.argrepr.rstrip("=") in _SET_OPERATORS
    return "makes a set of keys" if of_sets and _KEYS.intersection(code.co_names) else ""
