from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compile_torch.environment import process_environment
from compile_torch.triton.environment import kernel_environment
from compile_wire.digest import Digest, check_digest, digest_of, parse_digest
from compile_wire.environment import check_environment, differing_fields, environment_id
from compile_wire.errors import DigestError, MalformedError
from compile_wire.limits import MAX_ENVIRONMENT_BYTES, MAX_ENVIRONMENT_FIELDS, MAX_ENVIRONMENT_TEXT
from tests.wire.wire_samples import digests

ENVIRONMENTS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), min_size=1, max_size=5)


@given(st.binary())
def test_a_digest_is_the_sha256_of_the_bytes_however_they_are_held(data: bytes) -> None:
    assert digest_of(data) == hashlib.sha256(data).hexdigest()
    assert digest_of(bytearray(data)) == digest_of(memoryview(data)) == digest_of(data)


@given(digests)
def test_a_digest_is_parsed_as_it_stands(digest: Digest) -> None:
    assert parse_digest(digest) == digest


@pytest.mark.parametrize(
    "text",
    ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", " " + "0" * 63, "../" + "0" * 61, "\u0660" * 64],
)
def test_what_is_no_digest_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_digest(text)


@given(st.binary(min_size=1), st.data())
def test_one_changed_bit_is_another_digest(data: bytes, pick: st.DataObject) -> None:
    digest = digest_of(data)
    check_digest(data, digest)
    bit = pick.draw(st.integers(0, 8 * len(data) - 1))
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8

    with pytest.raises(DigestError):
        check_digest(changed, digest)


@given(ENVIRONMENTS, st.randoms())
def test_an_environment_is_the_same_in_any_order(fields: dict[str, str], random: object) -> None:
    shuffled = list(fields.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined] # hypothesis types it as object

    assert environment_id(dict(shuffled)) == environment_id(fields)


@given(ENVIRONMENTS, ENVIRONMENTS)
def test_environments_are_the_same_where_no_field_differs(ours: dict[str, str], theirs: dict[str, str]) -> None:
    assert (environment_id(ours) == environment_id(theirs)) == (differing_fields(ours, theirs) == [])


def test_text_does_not_move_between_a_field_and_its_name() -> None:
    pairs = [{"ab": "c"}, {"a": "bc"}, {"a": "b", "c": ""}, {"a": "", "b": "c"}, {"a": "b\x00c"}]

    assert len({environment_id(fields) for fields in pairs}) == len(pairs)


def test_a_difference_names_the_field_and_both_values() -> None:
    assert differing_fields({"torch": "2.13", "gpu": "a"}, {"torch": "2.15", "libc": "b"}) == [
        "gpu: a, (absent)",
        "libc: (absent), b",
        "torch: 2.13, 2.15",
    ]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="none"),
        pytest.param({"": "a"}, id="no name"),
        pytest.param({"torch": "2.13", "colour": "red"}, id="unknown name"),
        pytest.param({"t" * (MAX_ENVIRONMENT_TEXT + 1): "a"}, id="long name"),
        pytest.param({"gpu": "a" * (MAX_ENVIRONMENT_TEXT + 1)}, id="long value"),
        pytest.param(dict.fromkeys(("gpu", "libc", "torch"), "a" * (MAX_ENVIRONMENT_BYTES // 3)), id="long together"),
        pytest.param(dict.fromkeys(("gpu", "libc"), "\u00e9" * (MAX_ENVIRONMENT_BYTES // 4)), id="long in bytes"),
        pytest.param({str(number): "" for number in range(MAX_ENVIRONMENT_FIELDS + 1)}, id="many"),
    ],
)
def test_an_environment_out_of_bounds_is_malformed(fields: dict[str, str]) -> None:
    with pytest.raises(MalformedError):
        check_environment(fields)


def test_an_environment_at_its_bounds_is_accepted() -> None:
    check_environment({"gpu": "a" * MAX_ENVIRONMENT_TEXT})
    check_environment({"gpu": "a" * MAX_ENVIRONMENT_TEXT, "libc": "a" * (MAX_ENVIRONMENT_BYTES // 2 - 7)})


def test_every_field_that_a_process_gathers_is_known() -> None:
    for fields in (process_environment(), kernel_environment()):
        check_environment(fields)
