from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compile_wire import limits
from compile_wire.digest import Digest, digest_of
from compile_wire.errors import MalformedError
from compile_wire.facts import Facts, decode_facts, encode_facts
from compile_wire.manifest import BlobRef, Manifest, decode_manifest, encode_manifest, manifest_digest
from tests.wire.wire_samples import manifest, manifests

ENTRY = ["entry", "", "0" * 64, 10]


def fields(**changes: Any) -> dict[str, Any]:
    return {**msgpack.unpackb(encode_manifest(manifest())), **changes}


def packed(value: Any) -> bytes:
    return bytes(msgpack.packb(value))


def an_object(name: str, size: int = 1) -> list[Any]:
    return ["object", name, "1" * 64, size]


@given(manifests())
def test_a_manifest_is_read_as_it_was_written(sample: Manifest) -> None:
    data = encode_manifest(sample)

    assert decode_manifest(data) == sample
    assert encode_manifest(decode_manifest(data)) == data
    assert manifest_digest(data) == digest_of(data)


@given(manifests(), st.data())
def test_a_broken_manifest_is_malformed_or_another_manifest_in_its_one_form(
    sample: Manifest, pick: st.DataObject
) -> None:
    data = bytearray(encode_manifest(sample))
    for _ in range(pick.draw(st.integers(1, 4))):
        at = pick.draw(st.integers(0, len(data) - 1))
        data[at : at + pick.draw(st.integers(0, 2))] = pick.draw(st.binary(max_size=2))

    try:
        read = decode_manifest(bytes(data))
    except MalformedError:
        return

    assert encode_manifest(read) == data


@pytest.mark.parametrize("name", sorted(fields()))
def test_every_field_is_needed(name: str) -> None:
    with pytest.raises(MalformedError):
        decode_manifest(packed({field: value for field, value in fields().items() if field != name}))


def test_a_field_more_is_refused() -> None:
    for name in ("extra", "", "v "):
        with pytest.raises(MalformedError):
            decode_manifest(packed(fields(**{name: 1})))


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": True},
        {"v": 1.0},
        {"key": ""},
        {"key": "k" * (limits.MAX_KEY_TEXT + 1)},
        {"key": 5},
        {"environment": "E" * 64},
        {"environment": ""},
        {"guards": None},
        {"guards": "g" * limits.MAX_MANIFEST_BYTES},
        {"graph": "f" * 63},
        {"graph": "../" + "f" * 61},
        {"compile_s": 1},
        {"compile_s": -0.5},
        {"compile_s": float("nan")},
        {"compile_s": float("inf")},
        {"compile_s": True},
        {"origin": "stranger"},
        {"origin": ["worker"]},
        {"blobs": {}},
        {"blobs": []},
        {"blobs": [ENTRY, ENTRY]},
        {"blobs": [an_object("k.so")]},
        {"blobs": [ENTRY[:3]]},
        {"blobs": [[*ENTRY, 1]]},
        {"blobs": [["entry", "", "0" * 64, -1]]},
        {"blobs": [["entry", "", "0" * 64, True]]},
        {"blobs": [["entry", "", "0" * 64, 1.0]]},
        {"blobs": [["entry", "", "0" * 64, limits.MAX_BLOB_BYTES + 1]]},
        {"blobs": [["entry", "", "0" * 63, 1]]},
        {"blobs": [["program", "", "0" * 64, 1]]},
        {"blobs": [[["entry"], "", "0" * 64, 1]]},
        {"blobs": [ENTRY, *(an_object(f"k{number}") for number in range(limits.MAX_BLOBS))]},
        {"blobs": [ENTRY, *(an_object(f"k{number}", limits.MAX_BLOB_BYTES) for number in range(3))]},
    ],
)
def test_a_field_out_of_bounds_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        decode_manifest(packed(fields(**change)))


def test_what_is_at_the_bounds_is_accepted() -> None:
    blobs = (
        BlobRef(role="entry", name="", sha256=Digest("0" * 64), size=limits.MAX_BLOB_BYTES),
        BlobRef(role="object", name="a" * limits.MAX_NAME_TEXT, sha256=Digest("1" * 64), size=limits.MAX_BLOB_BYTES),
    )

    largest = manifest(key="k" * limits.MAX_KEY_TEXT, blobs=blobs, compile_s=0.0)

    assert decode_manifest(encode_manifest(largest)).total_bytes == limits.MAX_ARTIFACT_BYTES


@pytest.mark.parametrize(
    "name",
    [
        "..",
        ".",
        ".hidden",
        "../k.so",
        "a/b.so",
        "/etc/passwd",
        "a\\b",
        "a\0b",
        "a\nb",
        "a b",
        "k.so\n",
        "\u00e9.so",
        "\u2025",
        "~",
        "$HOME",
        "a:b",
        "a" * (limits.MAX_NAME_TEXT + 1),
    ],
)
def test_a_blob_is_never_named_by_a_path(name: str) -> None:
    with pytest.raises(MalformedError):
        decode_manifest(packed(fields(blobs=[ENTRY, an_object(name)])))


def test_the_same_manifest_in_another_form_is_refused() -> None:
    good = fields()
    data = encode_manifest(manifest())
    assert packed(good) == data
    in_reverse = packed(dict(reversed(good.items())))
    with_wide_length = b"\xde\x00\x08" + data[1:]
    with_a_short_float = msgpack.packb(good, use_single_float=True)
    with_a_field_twice = b"\x89" + data[1:] + packed("v") + packed(1)

    for other in (in_reverse, with_wide_length, with_a_short_float, with_a_field_twice):
        with pytest.raises(MalformedError):
            decode_manifest(other)


def test_a_manifest_that_breaks_a_bound_is_not_written() -> None:
    for wrong in (manifest(key=""), manifest(compile_s=-1.0), manifest(blobs=())):
        with pytest.raises(MalformedError):
            encode_manifest(wrong)


@pytest.mark.parametrize("value", [None, [], "v", 1, {b"v": 1, "v": 1}, {"v": {"v": 1}}])
def test_what_is_no_manifest_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedError):
        decode_manifest(packed(value))


@given(st.dictionaries(st.text(max_size=30), st.booleans(), max_size=5))
def test_facts_are_read_as_they_were_written(verdicts: dict[str, bool]) -> None:
    data = encode_facts(Facts(vec_isa=verdicts))

    assert decode_facts(data) == Facts(vec_isa=verdicts)
    assert encode_facts(decode_facts(data)) == data


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"vec_isa": []},
        {"vec_isa": {"avx2": 1}},
        {"vec_isa": {"avx2": None}},
        {"vec_isa": {b"avx2": True}},
        {"vec_isa": {}, "more": 1},
        {b"vec_isa": {}},
        {"vec_isa": {str(number): True for number in range(20_000)}},
    ],
)
def test_what_is_no_facts_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedError):
        decode_facts(packed(value))
