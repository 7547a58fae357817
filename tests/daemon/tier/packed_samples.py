"""Packed objects for the tests: good ones, damaged ones, and nonsense that a trusted signer has signed."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import zstandard

from compile_wire.digest import digest_of
from compiler_daemon.tier.header import read_header
from compiler_daemon.tier.object_errors import (
    ObjectError,
)
from compiler_daemon.tier.packed import Accept, Unpacked, pack_facts, unpack
from compiler_daemon.tier.signers import Listed, SignerList, SigningKey
from tests.daemon.tier.tier_samples import (
    ENVIRONMENT,
    FACTS,
    HOST,
    KEY,
    LAB,
    TRUSTED,
    artifact,
    compressed,
    packed,
    signed_anew,
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
