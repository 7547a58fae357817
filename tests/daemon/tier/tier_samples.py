"""Signers, artifacts and their packed objects."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from compile_wire.digest import Digest, digest_of
from compile_wire.facts import Facts, encode_facts
from compile_wire.manifest import BlobRef, Manifest, Origin, encode_manifest
from compiler_daemon.tier import ed25519
from compiler_daemon.tier.body import compress
from compiler_daemon.tier.header import Signature, Statement, encode_header, encode_statement, read_header, text_to_sign
from compiler_daemon.tier.packed import pack
from compiler_daemon.tier.signers import Listed, Signer, SignerList, SigningKey

KEY = "k" * 53
ENVIRONMENT = digest_of(b"environment")
FACTS = encode_facts(Facts(vec_isa={"avx2 -O3": True, "avx512 -O3": False}))
HOST = "node-07"


def key_named(name: str) -> SigningKey:
    """Return a key that depends on the name only, so that each process gets the same one."""
    seed = hashlib.sha256(name.encode()).digest()
    return SigningKey(Signer(name, ed25519.public_of(seed)), seed)


LAB, CI, STRANGER = key_named("lab-1"), key_named("ci-1"), key_named("stranger-1")

TRUSTED = SignerList(listed=tuple(Listed(signer=key.signer, since=0.0) for key in (LAB, CI)))


@dataclass(frozen=True)
class Artifact:
    manifest: bytes
    blobs: Mapping[Digest, bytes]
    graph: bytes | None


def artifact(
    blobs: list[bytes] | None = None,
    *,
    key: str = KEY,
    environment: Digest = ENVIRONMENT,
    origin: Origin = "worker",
    graph: bytes | None = b"a graph",
    names: list[str] | None = None,
) -> Artifact:
    contents = [b"an entry", b"a shared object" * 20] if blobs is None else blobs
    called = names or ["", *(f"{number}.so" for number in range(1, len(contents)))]
    refs = tuple(
        BlobRef(role="object" if number else "entry", name=name, sha256=digest_of(blob), size=len(blob))
        for number, (name, blob) in enumerate(zip(called, contents, strict=True))
    )
    manifest = Manifest(
        key=key,
        environment=environment,
        guards="",
        graph=digest_of(graph) if graph else "",
        compile_s=1.5,
        origin=origin,
        blobs=refs,
    )
    return Artifact(encode_manifest(manifest), {digest_of(blob): blob for blob in contents}, graph)


def typical(seed: int = 1) -> Artifact:
    """Return an artifact as large as a small trainer's: 13 blobs, 420 KB together, which compress to a tenth."""
    chosen = random.Random(seed)
    words = [chosen.randbytes(24) for _ in range(300)]
    return artifact([b"".join(chosen.choices(words, k=1350)) for _ in range(13)], graph=b"".join(words[:200]))


def packed(made: Artifact, signer: SigningKey = LAB, *, facts: str = "", now: float = 1_800_000_000.0) -> bytes:
    return pack(made.manifest, made.blobs, graph=made.graph, facts=facts, signer=signer, host=HOST, now=now)


def signed_anew(data: bytes, *signers: SigningKey, body: bytes | None = None, **changes: Any) -> bytes:
    """Return the object with a changed statement, and another body if given, signed by a trusted signer."""
    header = read_header(data)
    content = data[header.body_begin :] if body is None else body
    statement = replace(header.statement, body=digest_of(content), packed=len(content), **changes)
    return forged(statement, content, *(signers or (LAB,)))


def forged(statement: Statement, body: bytes, *signers: SigningKey) -> bytes:
    signed = encode_statement(statement)
    signatures = tuple(Signature(one.signer, one.sign(text_to_sign(one.signer.name, signed))) for one in signers)
    return encode_header(signed, signatures) + body


def compressed(*parts: bytes) -> bytes:
    return compress(parts)
