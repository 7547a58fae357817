"""No packed object makes a reader take more memory than it may, whatever it announces."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import suppress

import msgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler_daemon.tier import packed as packed_module
from compiler_daemon.tier.body import BodyReader
from compiler_daemon.tier.header import MAGIC, Signature, encode_header, read_header, text_to_sign
from compiler_daemon.tier.object_errors import (
    MalformedObjectError,
    ObjectError,
)
from compiler_daemon.tier.packed import countersign
from tests.daemon.tier.packed_samples import (
    SIGNED_NONSENSE,
    SMALL,
    SMALL_FACTS,
    allocating_at_most,
    body_of,
    read,
    reason_of,
)
from tests.daemon.tier.tier_samples import (
    CI,
    LAB,
    STRANGER,
    artifact,
    compressed,
    packed,
    signed_anew,
)


def bomb(announced: int, real: int) -> bytes:
    """Return an object with `real` zeros as its body, whose frame and statement announce `announced` bytes."""
    frame = compressed(bytes(real))
    sizes = zstandard.get_frame_parameters(frame)
    assert sizes.content_size == real
    lied = frame.replace(real.to_bytes(4, "little"), announced.to_bytes(4, "little"), 1) if real != announced else frame
    return signed_anew(SMALL, body=lied, unpacked=announced)


@pytest.mark.parametrize("announced", [70_000, 10_000_000, 200_000_000])
def test_a_bomb_is_never_unpacked_further_than_its_first_part(announced: int) -> None:
    data = bomb(announced, real=200_000_000)

    assert len(data) < 20_000
    with allocating_at_most(2**20):
        assert reason_of(data) == "malformed"


def test_a_bomb_of_somebody_who_is_not_trusted_is_not_even_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    data = signed_anew(bomb(200_000_000, 200_000_000), STRANGER)
    monkeypatch.setattr(packed_module, "BodyReader", lambda body, size: pytest.fail("it was begun"))

    assert reason_of(data) == "unknown_signer"
    assert reason_of(SMALL[:-1] + b"?") == "malformed"


def test_an_announced_part_takes_no_memory_before_it_is_there() -> None:
    reader = BodyReader(memoryview(compressed(bytes(2**20))), 2**20)
    reader._left = 2**31

    with allocating_at_most(8 * 2**20), pytest.raises(MalformedObjectError, match="ends early"):
        reader.read(2**30)


_MEASURED = """
import io, sys, zstandard
from tests.daemon.tier import packed_samples as tests
from compiler_daemon.tier import packed

class Careless(packed.BodyReader):
    def __init__(self, body, size):
        self._left, self._stream = size, io.BytesIO(zstandard.ZstdDecompressor().decompress(body))

def most_kib():
    # Not ru_maxrss: a process begins with that of the one that started it.
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

if "careless" in sys.argv:
    packed.BodyReader = Careless
tests.reason_of(tests.SMALL + b"x")
before = most_kib()
for data in sys.stdin.buffer.read().split(b"--next--"):
    assert tests.reason_of(data) == "malformed"
print(most_kib() - before)
"""


def grown_kib(hostile: list[bytes], *arguments: str) -> int:
    """Return how far a process grows that reads these objects, including what the decompressor allocates."""
    ended = subprocess.run(
        [sys.executable, "-c", _MEASURED, *arguments],
        input=b"--next--".join(hostile),
        capture_output=True,
        check=True,
        timeout=60,
    )
    return int(ended.stdout)


def test_no_object_makes_a_process_grow() -> None:
    bombs = [bomb(200_000_000, 200_000_000), bomb(2**20, 200_000_000)]

    assert grown_kib([*bombs, *(make() for make, _ in SIGNED_NONSENSE.values())]) < 16 * 1024


def test_a_reader_that_unpacks_all_at_once_makes_a_process_grow() -> None:
    assert grown_kib([bomb(200_000_000, 200_000_000)], "careless") > 150 * 1024


# Fuzz


@pytest.mark.parametrize("seed", range(4))
def test_random_changes_are_refused_and_cost_nothing(seed: int) -> None:
    chosen = random.Random(seed)
    sources = [SMALL, SMALL_FACTS, countersign(SMALL, CI), packed(artifact(key="other"))]
    with allocating_at_most(4 * 2**20):
        for _ in range(500):
            source = chosen.choice(sources)
            data = mutated(source, sources, chosen)
            with suppress(ObjectError):
                read_header(data)
            try:
                read(data)
            except ObjectError:
                continue
            assert data in (SMALL, countersign(SMALL, CI)), "an object that nobody signed was taken"


def mutated(source: bytes, sources: list[bytes], chosen: random.Random) -> bytes:
    data = bytearray(source)
    for _ in range(chosen.randint(1, 4)):
        at, length = chosen.randrange(len(data) + 1), chosen.choice([1, 1, 2, 8, 100])
        match chosen.randrange(6):
            case 0:
                data[at : at + length] = chosen.randbytes(length)
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = chosen.randbytes(length)
            case 3:
                other = chosen.choice(sources)
                data[at:] = other[at:]
            case 4 if at < len(data):
                data[at] = chosen.choice([0, 1, 0x7F, 0x80, 0xC4, 0xDC, 0xDD, 0xDF, 0xFF])
            case _:
                data[at : at + length] = data[:length]
        if not data:
            data += b"\0"
    return bytes(data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_a_header_of_anything_is_refused(tail: bytes) -> None:
    for data in (tail, MAGIC + tail, SMALL[:13] + tail):
        with pytest.raises(ObjectError):
            read(data)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.binary(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    )
)
def test_a_statement_of_other_values_is_refused(value: object) -> None:
    signed = msgpack.packb(value)
    signature = Signature(LAB.signer, LAB.sign(text_to_sign("lab-1", signed)))

    assert reason_of(encode_header(signed, (signature,)) + b"body") == "malformed"


FIELDS = sorted(msgpack.unpackb(read_header(SMALL).signed))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, -1, 2**63, "\x1b[31m", "x" * 300, b"bytes", [1], {}, True, 1.5, ""])
def test_a_signed_statement_with_an_impossible_field_is_refused(field: str, value: object) -> None:
    fields = msgpack.unpackb(read_header(SMALL).signed)
    if fields[field] == value or (value == "" and field in {"host", "facts"}):
        return
    signed = msgpack.packb({**fields, field: value})
    signature = Signature(LAB.signer, LAB.sign(text_to_sign("lab-1", signed)))

    assert reason_of(encode_header(signed, (signature,)) + body_of(SMALL)) in {"malformed", "too_large"}
