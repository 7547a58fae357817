"""Code that may compute what is another in each process is refused, and code that only looks something up is not."""

from __future__ import annotations

import types

import pytest
import torch

from compile_client.traces.errors import NotSkippedError
from compile_client.traces.names import Names
from compile_client.traces.unguarded import check_code

_SAME_IN_EACH = {
    "asks what is in a set": "return x if name in {'a', 'b', 'c'} else -x",
    "asks what is in a list": "return x if name in ['a', 'b'] else -x",
    "walks through texts in their order": "for one in ('a', 'b'): x = x * len(one)\nreturn x",
    "walks through a dict": "for one in TABLE: x = x * TABLE[one]\nreturn x",
    "walks through keys": "for one in TABLE.keys(): x = x * TABLE[one]\nreturn x",
    "subtracts": "return x - TABLE['a']",
    "has attributes of these names": "return x * TABLE.id + TABLE.hash",
}
_ANOTHER_IN_EACH = {
    "hash: uses hash": "return x * hash('a')",
    "hash: uses set": "for one in set(TABLE): x = x * TABLE[one]\nreturn x",
    "hash: uses frozenset": "return x * TABLE[min(frozenset(TABLE))]",
    "hash: uses union": "return x * len(TABLE.union(x))",
    "hash: makes a set": "names = {'a', 'b', 'c', name}\nfor one in names: x = x * TABLE[one]\nreturn x",
    "hash: makes a set of keys": "for one in TABLE.keys() - OTHER.keys(): x = x * TABLE[one]\nreturn x",
    "hash: f.<locals>.<setcomp> makes a set": "return x * len({one + name for one in TABLE})",
    "address: asks for an object's id": "return x * (id(TABLE) % 7)",
    "limit: asks for Python's getrecursionlimit": "return x * sys.getrecursionlimit()",
}


def _code(body: str) -> types.CodeType:
    lines = "\n".join(f"    {line}" for line in body.split("\n"))
    made: dict[str, types.FunctionType] = {}
    exec(compile(f"def f(x, name='a'):\n{lines}\n", "made", "exec"), made)
    return made["f"].__code__


@pytest.mark.parametrize("what", _SAME_IN_EACH)
def test_what_is_the_same_in_each_process_is_taken(what: str) -> None:
    check_code(_code(_SAME_IN_EACH[what]))


@pytest.mark.parametrize("said", _ANOTHER_IN_EACH)
def test_what_is_another_in_each_process_is_refused(said: str) -> None:
    reason, _, text = said.partition(": ")

    with pytest.raises(NotSkippedError) as refused:
        check_code(_code(_ANOTHER_IN_EACH[said]))

    assert refused.value.reason == reason
    assert text.removeprefix("f.<locals>.<setcomp> ") in str(refused.value)


def test_a_function_whose_result_is_assumed_to_be_constant_has_no_name() -> None:
    @torch._dynamo.assume_constant_result  # type: ignore[no-untyped-call,untyped-decorator]  # torch's
    def assumed() -> int:
        return 3

    class Holder:
        method = staticmethod(assumed)

    for value in (assumed, Holder):
        with pytest.raises(NotSkippedError, match="assumed to be constant"):
            Names().of(value, "")
