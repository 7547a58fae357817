"""msgpack looked through before anything is made of it: how many lists and maps there are, and what they announce.

A list costs its reader some sixty bytes of memory, and its sender one; a header of five bytes can announce a list of
millions. Only headers are read here, so that the work is that of counting.
"""

from __future__ import annotations

from compile_wire.errors import MalformedError

_FIXED = {0xC0: 1, 0xC2: 1, 0xC3: 1, 0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}
_FIXED |= {0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
_PREFIXED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""Bytes and text: how many bytes their length has."""
_COUNTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Lists and maps: how many bytes their count has, and how many values each item is."""


def _whole(head: int) -> int:
    """Return how many bytes a value takes that begins like this; 0 where the head alone does not say."""
    if head <= 0x7F or head >= 0xE0:
        return 1
    if 0xA0 <= head <= 0xBF:
        return 1 + (head & 0x1F)
    return _FIXED.get(head, 0)


_WHOLE = [_whole(head) for head in range(256)]


def count_lists(data: bytes, most: int, what: str) -> int:
    """Return how many lists and maps there are.

    Raises `MalformedError` where they are more than `most`, or announce more values than there are bytes.
    """
    at, size, lists, announced = 0, len(data), 0, 0
    while at < size:
        head = data[at]
        if step := _WHOLE[head]:
            at += step
            continue
        at += 1
        if width := _PREFIXED.get(head, 0):
            at += width + int.from_bytes(data[at : at + width], "big")
            continue
        if head <= 0x9F:
            announced += (head & 0x0F) * (1 if head >= 0x90 else 2)
        elif head in _COUNTED:
            width, values = _COUNTED[head]
            announced += int.from_bytes(data[at : at + width], "big") * values
            at += width
        else:
            return lists  # of no type that is used here: whoever makes values of it stops there, too
        lists += 1
        if lists > most:
            raise MalformedError(f"{what} has more than {most} lists and maps")
        if announced > size:
            raise MalformedError(f"{what} is not msgpack: it announces more values than it has bytes")
    return lists
