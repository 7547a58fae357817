from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compile_wire.digest import Digest
from compile_wire.errors import SignatureError
from compile_wire.signature import SECRET_BYTES, sign_artifact, sign_facts, verify_artifact, verify_facts
from tests.wire.wire_samples import digests

SECRET = bytes(range(SECRET_BYTES))
ENVIRONMENT = Digest("e" * 64)
secrets = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(secrets, st.text(max_size=60), digests, st.binary())
def test_a_signature_verifies_what_it_was_made_of(
    secret: bytes, key: str, environment: Digest, manifest: bytes
) -> None:
    signature = sign_artifact(secret, key=key, environment=environment, manifest=manifest)

    verify_artifact(secret, signature, key=key, environment=environment, manifest=manifest)


def test_every_bit_of_the_manifest_is_signed() -> None:
    manifest = b"a manifest of some bytes"
    signature = sign_artifact(SECRET, key="key", environment=ENVIRONMENT, manifest=manifest)

    for bit in range(8 * len(manifest)):
        with pytest.raises(SignatureError):
            verify_artifact(SECRET, signature, key="key", environment=ENVIRONMENT, manifest=flipped(manifest, bit))


def test_every_bit_of_the_signature_counts() -> None:
    signature = sign_artifact(SECRET, key="key", environment=ENVIRONMENT, manifest=b"m")

    for bit in range(8 * len(signature)):
        with pytest.raises(SignatureError):
            verify_artifact(SECRET, flipped(signature, bit), key="key", environment=ENVIRONMENT, manifest=b"m")
    for wrong in (b"", signature[:-1], signature + b"\0", signature[1:]):
        with pytest.raises(SignatureError):
            verify_artifact(SECRET, wrong, key="key", environment=ENVIRONMENT, manifest=b"m")


def test_every_bit_of_the_secret_counts() -> None:
    signature = sign_artifact(SECRET, key="key", environment=ENVIRONMENT, manifest=b"m")

    for bit in range(8 * SECRET_BYTES):
        with pytest.raises(SignatureError):
            verify_artifact(flipped(SECRET, bit), signature, key="key", environment=ENVIRONMENT, manifest=b"m")


@given(st.text(max_size=20), st.text(max_size=20), digests, digests)
def test_another_key_or_environment_is_another_signature(key: str, other: str, here: Digest, there: Digest) -> None:
    one = sign_artifact(SECRET, key=key, environment=here, manifest=b"m")
    two = sign_artifact(SECRET, key=other, environment=there, manifest=b"m")

    assert (one == two) == (key == other and here == there)


def test_text_does_not_move_between_key_and_environment() -> None:
    one = sign_artifact(SECRET, key="ab", environment=Digest("c" + "0" * 63), manifest=b"m")
    two = sign_artifact(SECRET, key="abc", environment=Digest("0" * 63), manifest=b"m")

    assert one != two


def test_a_signature_over_facts_is_none_over_an_artifact() -> None:
    over_facts = sign_facts(SECRET, environment=ENVIRONMENT, facts=b"same")

    verify_facts(SECRET, over_facts, environment=ENVIRONMENT, facts=b"same")
    for key in ("", "facts", ENVIRONMENT):
        with pytest.raises(SignatureError):
            verify_artifact(SECRET, over_facts, key=key, environment=ENVIRONMENT, manifest=b"same")


def test_every_bit_of_the_facts_is_signed() -> None:
    signature = sign_facts(SECRET, environment=ENVIRONMENT, facts=b"facts")

    for bit in range(8 * 5):
        with pytest.raises(SignatureError):
            verify_facts(SECRET, signature, environment=ENVIRONMENT, facts=flipped(b"facts", bit))
    with pytest.raises(SignatureError):
        verify_facts(SECRET, signature, environment=Digest("d" * 64), facts=b"facts")


@pytest.mark.parametrize("length", [0, 1, SECRET_BYTES - 1, SECRET_BYTES + 1])
def test_a_secret_of_another_length_signs_and_verifies_nothing(length: int) -> None:
    with pytest.raises(SignatureError, match="bytes, not 32"):
        sign_artifact(b"s" * length, key="key", environment=ENVIRONMENT, manifest=b"m")
    with pytest.raises(SignatureError, match="bytes, not 32"):
        verify_facts(b"s" * length, b"\x01" + b"0" * 32, environment=ENVIRONMENT, facts=b"f")
