from __future__ import annotations

import contextlib
import gc
import time
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compile_wire.errors import MalformedError
from compile_wire.packing import MAX_DEPTH, _uncollected, pack, unpack
from compile_wire.scanning import count_lists

PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(PLAIN | st.binary(), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=20)


def read(data: bytes) -> Any:
    return unpack(data, max_bytes=1 << 20, what="thing")


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\x90"


@given(VALUES)
def test_what_is_packed_is_read_again(value: Any) -> None:
    assert read(pack(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        read(data)


@given(VALUES, st.data())
def test_what_is_cut_off_is_malformed(value: Any, data: st.DataObject) -> None:
    packed = pack(value)

    with pytest.raises(MalformedError, match="not msgpack"):
        read(packed[: data.draw(st.integers(0, len(packed) - 1))])


@given(VALUES, st.binary(min_size=1, max_size=4))
def test_trailing_bytes_are_malformed(value: Any, more: bytes) -> None:
    with pytest.raises(MalformedError):
        read(pack(value) + more)


def test_more_bytes_than_allowed_are_refused_before_they_are_read() -> None:
    with pytest.raises(MalformedError, match="thing has 11 bytes, more than 10"):
        unpack(b"\xc1" * 11, max_bytes=10, what="thing")


def test_depth_is_bounded() -> None:
    assert read(nested(MAX_DEPTH - 1))

    for depth in (MAX_DEPTH, 500, 1100, 200_000):
        with pytest.raises(MalformedError):
            read(nested(depth))


def test_depth_in_maps_is_bounded() -> None:
    with pytest.raises(MalformedError, match="deeper"):
        read(b"\x81\xa1a" * MAX_DEPTH + b"\x90")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(msgpack.packb(msgpack.ExtType(5, b"")), id="empty"),
        pytest.param(msgpack.packb(msgpack.ExtType(5, b"a")), id="fixed"),
        pytest.param(msgpack.packb([msgpack.ExtType(0, b"a" * 300)]), id="long"),
        pytest.param(msgpack.packb(msgpack.Timestamp(1)), id="time"),
        pytest.param(msgpack.packb(msgpack.Timestamp(2**40, 5)), id="long time"),
    ],
)
def test_extension_types_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        read(data)


@pytest.mark.parametrize("key", [b"a", 1, None, 1.5, True])
def test_map_keys_that_are_no_text_are_refused(key: Any) -> None:
    for value in ({key: 1}, [{"a": {key: 1}}]):
        with pytest.raises(MalformedError):
            read(msgpack.packb(value))


def test_text_that_is_not_utf8_is_refused() -> None:
    for data in (b"\xa1\xff", b"\xa3\xed\xa0\x80", b"\x81\xa1\xff\x01"):
        with pytest.raises(MalformedError):
            read(data)


@pytest.mark.parametrize("prefix", [b"\xdd", b"\xdf", b"\xc6", b"\xdb", b"\xc9"])
def test_a_length_that_promises_more_than_there_is_costs_nothing(prefix: bytes) -> None:
    start = time.monotonic()

    for promised in (2**32 - 1, 2**20 - 6, 2**16):
        with pytest.raises(MalformedError):
            read((prefix + promised.to_bytes(4, "big")) * 60 + b"\xc0" * 1000)

    assert time.monotonic() - start < 1.0


_MANY = 1 << 20


def _with_a_list_of(kind: bytes) -> bytes:
    return b"\xdd" + _MANY.to_bytes(4, "big") + kind * _MANY


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_with_a_list_of(b"\x90"), id="empty lists"),
        pytest.param(_with_a_list_of(b"\x80"), id="empty maps"),
        pytest.param(_with_a_list_of(b"\xdc\x00\x00"), id="empty lists with a long head"),
        pytest.param(_with_a_list_of(b"\x81\xa0\x90"), id="lists in maps"),
        pytest.param((b"\xdc\xff\xff" * 500 + b"\xc0") * 500, id="lists that announce what is not there"),
        pytest.param((b"\xdf\x00\x08\x00\x00\xa1a" * 500 + b"\xc0") * 500, id="maps that do"),
    ],
)
def test_a_value_of_many_lists_is_refused_before_any_of_them_is_made(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MalformedError, match=r"more than 300000 lists and maps|announces more values"):
            unpack(data, max_bytes=1 << 23, what="thing", max_lists=300_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 1 << 20


@given(VALUES)
def test_lists_are_counted_as_they_are_made(value: Any) -> None:
    def lists_in(item: Any) -> int:
        below = item if isinstance(item, list) else item.values() if isinstance(item, dict) else ()
        return isinstance(item, (list, dict)) + sum(map(lists_in, below))

    assert count_lists(pack(value), 10**6, "thing") == lists_in(value)


@pytest.mark.parametrize("on", [True, False])
def test_the_garbage_collector_rests_while_many_lists_are_made_and_is_as_it_was_afterwards(on: bool) -> None:
    data = pack([[] for _ in range(100_000)])
    seen: list[str] = []
    gc.collect()
    gc.callbacks.append(watch := lambda phase, _: seen.append(phase))
    try:
        (gc.enable if on else gc.disable)()
        with _uncollected(100_000):
            made = [[] for _ in range(100_000)]  # type: ignore[var-annotated]  # of nothing
            assert seen == []
        assert gc.isenabled() is on
        assert len(read(data)) == len(made)
    finally:
        gc.enable()
        gc.callbacks.remove(watch)


def test_only_plain_values_are_packed() -> None:
    class Text(str):
        __slots__ = ()

    for value in (Text("a"), (1, 2), object(), {1, 2}):
        with pytest.raises(TypeError):
            pack(value)
