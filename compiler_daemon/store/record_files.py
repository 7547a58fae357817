"""Small files beside the blobs that say what they are for: the truth from which the index can be made again.

Each starts with the SHA-256 of the rest, because these files are not named by their contents.
Reading refuses everything that is not exactly a record: a changed byte is damage, never another artifact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from compile_wire.digest import Digest, digest_of, parse_digest
from compile_wire.errors import DigestError, MalformedError
from compile_wire.limits import MAX_KEY_TEXT, MAX_MANIFEST_BYTES, MAX_NAME_TEXT
from compile_wire.manifest import Manifest, decode_manifest, manifest_digest
from compile_wire.packing import pack, unpack

MAX_SIGNATURE_BYTES = 4096
"""An HMAC has 33; a certificate chain would fit."""

_MAX_RECORD_BYTES = MAX_MANIFEST_BYTES + MAX_SIGNATURE_BYTES + 64 * 1024
_VERSION = 1
_SEAL_BYTES = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class ArtifactRecord:
    """Everything about an artifact that cannot be counted again."""

    manifest: bytes
    signature: bytes
    program: str
    created: float
    pinned: bool

    @property
    def digest(self) -> Digest:
        """The artifact's name."""
        return manifest_digest(self.manifest)

    def with_pinned(self, pinned: bool) -> ArtifactRecord:
        """Return the same record with the user's pin set or cleared."""
        return replace(self, pinned=pinned)

    def with_signature(self, signature: bytes) -> ArtifactRecord:
        """Return the same record signed anew."""
        return replace(self, signature=signature)


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestRecord:
    """A graph was asked for under this key."""

    environment: Digest
    key: str
    graph: Digest
    program: str
    created: float

    @property
    def name(self) -> Digest:
        """The name of the record's file: one for each key of an environment."""
        return digest_of(pack([self.environment, self.key]))


def encode_artifact(record: ArtifactRecord) -> bytes:
    """Return the bytes of an artifact's record; raise `MalformedError` where signature or program is too long."""
    if len(record.signature) > MAX_SIGNATURE_BYTES:
        raise MalformedError(f"a signature of {len(record.signature)} bytes is more than {MAX_SIGNATURE_BYTES}")
    check_text(record.program, "program", MAX_NAME_TEXT)
    return _seal([_VERSION, record.manifest, record.signature, record.program, record.created, record.pinned])


def decode_artifact(data: bytes, name: Digest) -> tuple[ArtifactRecord, Manifest]:
    """Return the record called `name`, and its manifest; raise `WireError` where the bytes are anything else."""
    match _unseal(data):
        case [int(), bytes(manifest), bytes(signature), str(program), float(created), bool(pinned)]:
            record = ArtifactRecord(
                manifest=manifest, signature=signature, program=program, created=created, pinned=pinned
            )
            if record.digest != name:
                raise DigestError("the record belongs to another artifact")
            return record, decode_manifest(manifest)
    raise MalformedError("not an artifact's record")


def encode_request(record: RequestRecord) -> bytes:
    """Return the bytes of a request's record; raise `MalformedError` where a field is too long."""
    check_text(record.key, "key", MAX_KEY_TEXT)
    check_text(record.program, "program", MAX_NAME_TEXT)
    return _seal([_VERSION, record.environment, record.key, record.graph, record.program, record.created])


def decode_request(data: bytes, name: Digest) -> RequestRecord:
    """Return the record called `name`; raise `WireError` where the bytes are anything else."""
    match _unseal(data):
        case [int(), str(environment), str(key), str(graph), str(program), float(created)]:
            record = RequestRecord(
                environment=parse_digest(environment),
                key=key,
                graph=parse_digest(graph),
                program=program,
                created=created,
            )
            if record.name != name:
                raise DigestError("the record belongs to another request")
            return record
    raise MalformedError("not a request's record")


def encode_facts_record(environment: Digest, facts: bytes) -> bytes:
    """Return the bytes that keep an environment's facts."""
    return _seal([_VERSION, environment, facts])


def decode_facts_record(data: bytes, environment: Digest) -> bytes:
    """Return the facts of `environment`; raise `WireError` where the bytes are anything else."""
    match _unseal(data):
        case [int(), str(name), bytes(facts)] if name == environment:
            return facts
    raise MalformedError("not this environment's facts")


def check_text(value: str, what: str, max_length: int) -> None:
    """Raise `MalformedError` where a caller's text is longer than its bound."""
    if len(value) > max_length:
        raise MalformedError(f"{what} is text of at most {max_length} characters")


def _seal(fields: list[Any]) -> bytes:
    body = pack(fields)
    return digest_of(body).encode() + body


def _unseal(data: bytes) -> list[Any]:
    body = data[_SEAL_BYTES:]
    if data[:_SEAL_BYTES] != digest_of(body).encode():
        raise DigestError("the record does not match its checksum")
    fields = unpack(body, max_bytes=_MAX_RECORD_BYTES, what="record")
    if not isinstance(fields, list) or not fields or fields[0] != _VERSION:
        raise MalformedError("not a record of a version known here")
    return fields
