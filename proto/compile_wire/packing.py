"""msgpack with the settings that make it safe and canonical here.

Reading is strict and bounded by the length of the input: text must be UTF-8, map keys must be text, no extension types,
no trailing bytes, and no length prefix may promise more than the input holds. How many lists and maps there are is
counted before any of them is made.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack

from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_LISTS
from compile_wire.scanning import count_lists

MAX_DEPTH = 64
"""Nesting of any value; expression trees of symbolic shapes are the deepest."""

_MANY = 20_000
"""From so many lists on the garbage collector would look through all of the process's objects, again and again."""

_collecting = threading.Lock()


def pack(value: object) -> bytes:
    """Return `value` in msgpack. Maps keep the order they were made in; callers make them in a fixed order."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, strict_types=True)
    return packed


def unpack(data: bytes, *, max_bytes: int, what: str, max_lists: int = MAX_LISTS) -> Any:
    """Return the value in `data`; raise `MalformedError` where it is too big, too deep or not msgpack.

    `max_lists` bounds its lists and maps together: each costs many times the memory that it takes here.
    """
    if len(data) > max_bytes:
        raise MalformedError(f"{what} has {len(data)} bytes, more than {max_bytes}")
    size = len(data)
    lists = count_lists(data, max_lists, what)
    try:
        with _uncollected(lists):
            value = msgpack.unpackb(
                data,
                raw=False,
                strict_map_key=True,
                ext_hook=_refuse_extension,
                max_str_len=size,
                max_bin_len=size,
                max_array_len=size,
                max_map_len=size,
                max_ext_len=0,
            )
    except MalformedError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise MalformedError(f"{what} is not msgpack: {type(error).__name__}") from error
    _check_form(value, what)
    return value


@contextmanager
def _uncollected(lists: int) -> Iterator[None]:
    """Hold the garbage collector off while many lists are made: they are none. One thread at a time."""
    if lists < _MANY:
        yield
        return
    with _collecting:
        was_on = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if was_on:
                gc.enable()


def _refuse_extension(code: int, data: bytes) -> object:
    raise MalformedError(f"extension type {code} is not used here ({len(data)} bytes)")


def _check_form(value: object, what: str) -> None:
    """Check depth and map keys (msgpack lets bytes be keys, too). No recursion: the depth is the sender's choice."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        below: list[object] = []
        for item in level:
            if isinstance(item, list):
                below.extend(part for part in item if isinstance(part, (list, dict)))
            elif isinstance(item, dict):
                if not all(isinstance(key, str) for key in item):
                    raise MalformedError(f"{what} has a map with a key that is no text")
                below.extend(part for part in item.values() if isinstance(part, (list, dict)))
        if not below:
            return
        level = below
    raise MalformedError(f"{what} is nested deeper than {MAX_DEPTH}")
