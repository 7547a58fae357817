"""Packed objects come out as they went in; one that was changed on its way is a miss with a reason."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compile_wire.digest import Digest, digest_of
from compile_wire.manifest import decode_manifest
from compiler_daemon.tier.header import MAX_HEADER_BYTES, Signature, encode_header, read_header
from compiler_daemon.tier.object_errors import (
    DistrustedSignerError,
    MalformedObjectError,
    ObjectError,
    UnknownSignerError,
)
from compiler_daemon.tier.packed import countersign, unpack_facts
from compiler_daemon.tier.signers import SignerList, SigningKey
from tests.daemon.tier.packed_samples import (
    SMALL,
    SMALL_FACTS,
    distrusting,
    read,
    reason_of,
)
from tests.daemon.tier.tier_samples import (
    CI,
    ENVIRONMENT,
    FACTS,
    HOST,
    KEY,
    LAB,
    STRANGER,
    TRUSTED,
    Artifact,
    artifact,
    packed,
    typical,
)

# What comes out is what went in


@pytest.mark.parametrize(
    "made", [artifact(), artifact(graph=None), artifact([b""]), artifact([b"e", b"s", b"s"]), typical()]
)
def test_what_was_packed_comes_out_again(made: Artifact) -> None:
    facts = digest_of(FACTS)

    found = read(packed(made, facts=facts))

    assert (found.manifest, found.blobs, found.graph) == (made.manifest, made.blobs, made.graph)
    assert found.decoded == decode_manifest(made.manifest)
    assert (found.facts, found.signer, found.statement.host) == (facts, LAB.signer, HOST)
    assert (found.statement.origin, found.statement.time) == ("worker", 1_800_000_000)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=6), st.one_of(st.none(), st.binary(min_size=1, max_size=99))
)
def test_any_blobs_and_any_graph_come_out_again(blobs: list[bytes], graph: bytes | None) -> None:
    made = artifact(blobs, graph=graph)

    found = read(packed(made))

    assert (found.manifest, found.blobs, found.graph) == (made.manifest, made.blobs, graph)


def test_an_artifact_takes_about_a_tenth_of_its_bytes() -> None:
    made = typical()

    assert len(packed(made)) * 4 < sum(map(len, made.blobs.values()))


def test_the_same_artifact_at_the_same_moment_is_the_same_object() -> None:
    assert packed(artifact()) == packed(artifact())


def test_facts_come_out_again() -> None:
    found = unpack_facts(SMALL_FACTS, environment=ENVIRONMENT, trusted=TRUSTED)

    assert (found.facts, found.signer, found.statement.host) == (FACTS, LAB.signer, HOST)


def test_a_header_says_what_the_object_is_without_its_body() -> None:
    header = read_header(packed(typical())[:MAX_HEADER_BYTES])

    assert (header.statement.key, header.statement.environment) == (KEY, ENVIRONMENT)
    assert [one.signer for one in header.signatures] == [LAB.signer]


# Who signed it


def test_an_unknown_signer_is_named_with_machine_and_the_command_to_trust_it() -> None:
    with pytest.raises(UnknownSignerError) as refused:
        read(packed(artifact(), STRANGER))

    assert (refused.value.signer, refused.value.host) == ("stranger-1", HOST)
    assert f"`compiler-daemon keys trust {STRANGER.signer.line}`" in str(refused.value)
    assert HOST in str(refused.value)


def test_a_distrusted_signer_is_named() -> None:
    with pytest.raises(DistrustedSignerError, match="lab-1 on node-07") as refused:
        read(SMALL, trusted=distrusting(LAB))

    assert refused.value.reason == "distrusted_signer"


def test_a_distrusted_key_is_not_believed_under_another_name_either() -> None:
    renamed = SigningKey(replace(LAB.signer, name="lab-2"), LAB.seed)

    assert reason_of(packed(artifact(), renamed), trusted=distrusting(LAB)) == "distrusted_signer"


def test_a_known_name_with_another_key_is_not_believed() -> None:
    impostor = SigningKey.make("lab-1")

    assert reason_of(packed(artifact(), impostor)) == "bad_signature"
    assert reason_of(packed(artifact(), impostor), trusted=distrusting(LAB)) == "bad_signature"


def test_a_directory_believes_its_own_key() -> None:
    assert read(SMALL, trusted=SignerList(own=LAB)).signer == LAB.signer
    assert reason_of(SMALL, trusted=SignerList()) == "unknown_signer"


def test_one_trusted_signer_of_several_is_enough() -> None:
    both = countersign(packed(artifact(), STRANGER), CI)

    assert read(both).signer == CI.signer
    assert read(both, trusted=SignerList(own=STRANGER)).signer == STRANGER.signer
    assert read(countersign(SMALL, STRANGER)).signer == LAB.signer
    assert reason_of(both, trusted=SignerList(own=LAB)) == "unknown_signer"
    assert reason_of(both, trusted=distrusting(STRANGER)) == "distrusted_signer"


def test_a_signature_that_does_not_fit_is_not_passed_over_for_one_that_does() -> None:
    header = read_header(SMALL)
    broken = Signature(CI.signer, CI.sign(b"something else"))

    both = encode_header(header.signed, (*header.signatures, broken)) + SMALL[header.body_begin :]

    assert reason_of(both) == "bad_signature"


def test_a_signature_is_its_signers_alone() -> None:
    header = read_header(SMALL)
    taken = Signature(CI.signer, header.signatures[0].signature)

    assert reason_of(encode_header(header.signed, (taken,)) + SMALL[header.body_begin :]) == "bad_signature"


def test_one_signer_signs_once_and_at_most_eight_sign() -> None:
    with pytest.raises(MalformedObjectError, match="signed twice"):
        countersign(SMALL, LAB)
    many = SMALL
    for number in range(1, 8):
        many = countersign(many, SigningKey.make(f"more-{number}"))
    assert read(many).signer == LAB.signer
    with pytest.raises(MalformedObjectError, match="1 to 8 signatures"):
        countersign(many, STRANGER)


# What was asked for, and whose work


@pytest.mark.parametrize(
    "other",
    [artifact(key="other"), artifact(environment=digest_of(b"another")), artifact(key="other", origin="trainer")],
)
def test_an_object_of_something_else_is_not_taken_for_it(other: Artifact) -> None:
    assert reason_of(packed(other)) == "wrong_key"


def test_facts_are_no_artifact_and_an_artifact_is_no_facts() -> None:
    assert reason_of(SMALL_FACTS) == "wrong_key"
    with pytest.raises(ObjectError) as refused:
        unpack_facts(SMALL, environment=ENVIRONMENT, trusted=TRUSTED)
    assert refused.value.reason == "wrong_key"


def test_facts_of_another_environment_are_not_taken() -> None:
    with pytest.raises(ObjectError) as refused:
        unpack_facts(SMALL_FACTS, environment=Digest("0" * 64), trusted=TRUSTED)

    assert refused.value.reason == "wrong_key"


def test_what_trainers_publish_can_be_left_out() -> None:
    published = packed(artifact(origin="trainer"))

    assert read(published).decoded.origin == "trainer"
    assert reason_of(published, accept="worker") == "origin_refused"
    assert read(packed(artifact(origin="worker")), accept="worker").decoded.origin == "worker"
    assert read(packed(artifact(origin="replay")), accept="worker").decoded.origin == "replay"
