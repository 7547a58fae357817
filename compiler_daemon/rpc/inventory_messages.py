"""InventoryService's messages: rows of the store packed, names and digests unpacked."""

from __future__ import annotations

from collections.abc import Iterable

from compile_wire.digest import Digest, parse_digest
from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_BLOBS
from compile_wire.v1 import inventory_pb2 as pb
from compiler_daemon.store import ArtifactRow, StoredGraph

_MAX_DIGEST_TEXT = 64


def pack_artifact(row: ArtifactRow) -> pb.ArtifactLine:
    """Return a line of the list of artifacts as a message."""
    return pb.ArtifactLine(
        digest=row.digest,
        environment_id=row.environment,
        key=row.key,
        graph=row.graph,
        bytes=row.bytes,
        compile_s=row.compile_s,
        origin=row.origin,
        program=row.program,
        created=row.created,
        used=row.used,
        hits=row.hits,
        pinned=row.pinned,
    )


def pack_request(row: StoredGraph) -> pb.RequestLine:
    """Return a request as a message."""
    return pb.RequestLine(
        environment_id=row.environment,
        key=row.key,
        graph=row.graph,
        program=row.program,
        bytes=row.bytes,
        created=row.created,
    )


def unpack_beginning(text: str) -> str:
    """Return the beginning of an environment's id; raise `MalformedError` where it is too long to be one."""
    if len(text) > _MAX_DIGEST_TEXT:
        raise MalformedError(f"an environment's id has {_MAX_DIGEST_TEXT} characters, not {len(text)}")
    return text


def unpack_digests(texts: Iterable[str]) -> list[Digest]:
    """Return the digests that a call names; raise `MalformedError` where they are too many, or one is none."""
    listed = list(texts)
    if len(listed) > MAX_BLOBS:
        raise MalformedError(f"one call names at most {MAX_BLOBS} digests, not {len(listed)}")
    return [parse_digest(text) for text in listed]
