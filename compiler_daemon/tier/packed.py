"""One object an artifact, or an environment's facts: packed and signed here, verified and unpacked there.

An artifact's body holds manifest, blobs in the order of the manifest (each once), and the graph, where there is one;
that of facts holds the facts. Guarantees: functions of bytes, with nothing in them interpreted or unpickled. What
`unpack` returns was signed, every byte of it, by somebody who is trusted, for exactly the key and environment that were
asked for. Whatever else an object is, it is an `ObjectError`, before anything of it was decompressed unless a trusted
signer vouches for it, and never by more than it announces and the bounds allow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from compile_wire.digest import Digest, digest_of
from compile_wire.errors import MalformedError
from compile_wire.facts import decode_facts
from compile_wire.manifest import Manifest, decode_manifest
from compiler_daemon.tier.body import BodyReader, compress
from compiler_daemon.tier.header import (
    MAX_UNPACKED_BYTES,
    Header,
    Purpose,
    Signature,
    Statement,
    encode_header,
    encode_statement,
    host_text,
    read_header,
    text_to_sign,
)
from compiler_daemon.tier.object_errors import (
    MalformedObjectError,
    ObjectTooLargeError,
    OriginRefusedError,
    WrongKeyError,
)
from compiler_daemon.tier.signers import Signer, SignerList, SigningKey
from compiler_daemon.tier.verification import check_part, check_signatures

__all__ = [
    "Accept",
    "Header",
    "Unpacked",
    "UnpackedFacts",
    "countersign",
    "pack",
    "pack_facts",
    "read_header",
    "unpack",
    "unpack_facts",
]

Accept = Literal["worker", "any"]
"""Whose compiles are taken: those of workers, which have proved the key, or also what trainers publish."""

MAX_FACTS_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpacked:
    """An artifact out of a tier, verified."""

    manifest: bytes
    decoded: Manifest
    blobs: Mapping[Digest, bytes]
    """All that the manifest names."""
    graph: bytes | None
    facts: str
    """Digest of the facts that its maker had; empty where it had none."""
    signer: Signer
    """Whom it is believed for."""
    statement: Statement


@dataclass(frozen=True, kw_only=True, slots=True)
class UnpackedFacts:
    """An environment's facts out of a tier, verified."""

    facts: bytes
    signer: Signer
    statement: Statement


def pack(
    manifest: bytes,
    blobs: Mapping[Digest, bytes],
    *,
    graph: bytes | None,
    facts: str,
    signer: SigningKey,
    host: str,
    now: float | None = None,
) -> bytes:
    """Return the object of an artifact, signed; `facts` is the digest of its environment's, or empty.

    Raises `ObjectError` where it is too large for a tier, or where its parts do not belong together.
    """
    decoded = _manifest(manifest)
    wanted = {blob.sha256: blob.size for blob in decoded.blobs}
    if blobs.keys() != wanted.keys():
        raise MalformedObjectError("the blobs are not those that the manifest names")
    for digest in wanted:
        check_part(blobs[digest], digest, "blob")
    statement = Statement(
        purpose="artifact",
        key=decoded.key,
        environment=decoded.environment,
        manifest=digest_of(manifest),
        graph=digest_of(graph) if graph else "",
        facts=facts,
        body=digest_of(b""),
        packed=0,
        unpacked=len(manifest) + sum(wanted.values()) + len(graph or b""),
        manifest_size=len(manifest),
        graph_size=len(graph or b""),
        origin=decoded.origin,
        signer=signer.signer.name,
        host=host_text(host),
        time=int(time.time() if now is None else now),
    )
    _check_graph(statement, decoded)
    return _signed(statement, [manifest, *(blobs[digest] for digest in wanted), graph or b""], signer)


def pack_facts(facts: bytes, environment: Digest, *, signer: SigningKey, host: str, now: float | None = None) -> bytes:
    """Return the object of an environment's facts, signed; raise `ObjectError` where they are none."""
    _check_facts(facts)
    statement = Statement(
        purpose="facts",
        key="",
        environment=environment,
        manifest="",
        graph="",
        facts=digest_of(facts),
        body=digest_of(b""),
        packed=0,
        unpacked=len(facts),
        manifest_size=0,
        graph_size=0,
        origin="worker",
        signer=signer.signer.name,
        host=host_text(host),
        time=int(time.time() if now is None else now),
    )
    return _signed(statement, [facts], signer)


def countersign(data: bytes, signer: SigningKey) -> bytes:
    """Return the object with one more signature. Who calls this has verified it: the new signer vouches for it."""
    header = read_header(data)
    signature = Signature(signer.signer, signer.sign(text_to_sign(signer.signer.name, header.signed)))
    return encode_header(header.signed, (*header.signatures, signature)) + data[header.body_begin :]


def unpack(
    data: bytes,
    *,
    key: str,
    environment: Digest,
    trusted: SignerList,
    accept: Accept = "any",
    max_unpacked: int = MAX_UNPACKED_BYTES,
) -> Unpacked:
    """Return the artifact in an object, verified; raise `ObjectError`, whose `reason` says why it is not used."""
    header, signer = _verified(data, "artifact", key, environment, trusted, accept, max_unpacked)
    statement = header.statement
    body = _body(data, header)
    manifest = body.read(statement.manifest_size)
    check_part(manifest, statement.manifest, "manifest")
    decoded = _manifest(manifest)
    if (decoded.key, decoded.environment, decoded.origin) != (key, environment, statement.origin):
        raise MalformedObjectError("its manifest says something else than its statement")
    _check_graph(statement, decoded)
    sizes = {blob.sha256: blob.size for blob in decoded.blobs}
    if statement.manifest_size + sum(sizes.values()) + statement.graph_size != statement.unpacked:
        raise MalformedObjectError("its parts do not fill its body")
    blobs: dict[Digest, bytes] = {}
    for digest, size in sizes.items():
        blobs[digest] = body.read(size)
        check_part(blobs[digest], digest, "blob")
    graph = body.read(statement.graph_size) if statement.graph else None
    if graph is not None:
        check_part(graph, statement.graph, "graph")
    body.finish()
    return Unpacked(
        manifest=manifest,
        decoded=decoded,
        blobs=blobs,
        graph=graph,
        facts=statement.facts,
        signer=signer,
        statement=statement,
    )


def unpack_facts(data: bytes, *, environment: Digest, trusted: SignerList) -> UnpackedFacts:
    """Return the facts in an object, verified, with the errors of `unpack`."""
    header, signer = _verified(data, "facts", "", environment, trusted, "any", MAX_FACTS_BYTES)
    body = _body(data, header)
    facts = body.read(header.statement.unpacked)
    check_part(facts, header.statement.facts, "facts")
    body.finish()
    _check_facts(facts)
    return UnpackedFacts(facts=facts, signer=signer, statement=header.statement)


def _signed(statement: Statement, parts: list[bytes], signer: SigningKey) -> bytes:
    encode_statement(statement)  # too large is said before it is compressed
    body = compress(parts)
    signed = encode_statement(replace(statement, body=digest_of(body), packed=len(body)))
    signature = Signature(signer.signer, signer.sign(text_to_sign(signer.signer.name, signed)))
    return encode_header(signed, (signature,)) + body


def _verified(
    data: bytes,
    purpose: Purpose,
    key: str,
    environment: Digest,
    trusted: SignerList,
    accept: Accept,
    max_unpacked: int,
) -> tuple[Header, Signer]:
    """Return the header of an object that may be decompressed, and whom it is believed for."""
    header = read_header(data)
    statement = header.statement
    if statement.unpacked > max_unpacked:
        raise ObjectTooLargeError(f"it announces a content of {statement.unpacked} bytes, more than {max_unpacked}")
    if (size := len(data) - header.body_begin) != statement.packed:
        raise MalformedObjectError(f"its body has {size} bytes, and the statement says {statement.packed}")
    signer = check_signatures(header, trusted)
    if (statement.purpose, statement.key, statement.environment) != (purpose, key, environment):
        raise WrongKeyError(f"{statement.signer} on {statement.host} signed it for another key or environment")
    if accept == "worker" and statement.origin == "trainer":
        raise OriginRefusedError(
            f"{statement.signer} on {statement.host} signed what a trainer had published: this daemon takes what "
            "workers have made (--tier-accept worker)"
        )
    check_part(memoryview(data)[header.body_begin :], statement.body, "body")
    return header, signer


def _body(data: bytes, header: Header) -> BodyReader:
    return BodyReader(memoryview(data)[header.body_begin :], header.statement.unpacked)


def _manifest(data: bytes) -> Manifest:
    try:
        decoded = decode_manifest(data)
    except MalformedError as error:
        raise MalformedObjectError(str(error)) from error
    names = [(blob.role, blob.name) for blob in decoded.blobs]
    if len(set(names)) != len(names):
        raise MalformedObjectError("its manifest names two blobs alike")
    if len({(blob.sha256, blob.size) for blob in decoded.blobs}) != len({blob.sha256 for blob in decoded.blobs}):
        raise MalformedObjectError("its manifest gives a blob two sizes")
    return decoded


def _check_graph(statement: Statement, decoded: Manifest) -> None:
    if statement.graph and decoded.graph not in ("", statement.graph):
        raise MalformedObjectError("its manifest names another graph than the one beside it")


def _check_facts(facts: bytes) -> None:
    try:
        decode_facts(facts)
    except MalformedError as error:
        raise MalformedObjectError(str(error)) from error
