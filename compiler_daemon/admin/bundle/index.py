"""The index of a file: what it says of itself, and where everything in it lies."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from compile_wire.digest import Digest, parse_digest
from compile_wire.environment import check_environment, environment_id
from compile_wire.errors import MalformedError
from compile_wire.limits import (
    MAX_BLOB_BYTES,
    MAX_ENVIRONMENT_TEXT,
    MAX_GRAPH_BYTES,
    MAX_KEY_TEXT,
    MAX_MANIFEST_BYTES,
    MAX_NAME_TEXT,
)
from compile_wire.packing import pack, unpack

Kind = Literal["artifacts", "graphs"]

VERSION = 1

MAGIC = b"\x89CDPACK\n"
"""Not text, and broken by whatever changes line ends."""

LENGTH_BYTES = 8
SIGNATURE_BYTES = 33
TAIL_BYTES = SIGNATURE_BYTES + LENGTH_BYTES + len(MAGIC)

MAX_INDEX_BYTES = 256 * 2**20
"""About 75 bytes a blob and 250 a request."""

_MAX_ENTRIES = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A graph that was asked for, and by whom."""

    environment: Digest
    key: str
    graph: Digest
    program: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Packed:
    """An artifact in a bundle: the item that is its manifest, and what the manifest does not say."""

    manifest: Digest
    environment: Digest
    program: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """Holds the table of contents of a bundle."""

    kind: Kind
    made_by: str
    """Version of the program that wrote it."""
    secret: str
    """Fingerprint of the secret that signed it; empty in a file of graphs."""
    environments: Mapping[Digest, Mapping[str, str]]
    """Of everything in the file."""
    requests: tuple[Request, ...]
    artifacts: tuple[Packed, ...]


def checksum(index: bytes) -> bytes:
    """Return what stands in the place of a signature where nobody signs: it shows damage, and nothing else."""
    return b"\x00" + hashlib.sha256(index).digest()


def encode_index(index: Index, items: Mapping[Digest, int]) -> bytes:
    """Return the bytes of an index; `items` gives their sizes, in the order of the file."""
    return pack(
        {
            "v": VERSION,
            "kind": index.kind,
            "made_by": index.made_by,
            "secret": index.secret,
            "environments": [
                [[name, fields[name]] for name in sorted(fields)] for fields in index.environments.values()
            ],
            "items": [[digest, size] for digest, size in items.items()],
            "requests": [[one.environment, one.key, one.graph, one.program] for one in index.requests],
            "artifacts": [[one.manifest, one.environment, one.program] for one in index.artifacts],
        }
    )


def decode_index(raw: bytes, end: int) -> tuple[Index, dict[Digest, tuple[int, int]]]:
    """Return the index, and where each item lies. Raises `MalformedError` for what this program would not write."""
    top = unpack(raw, max_bytes=MAX_INDEX_BYTES, what="index")
    if not isinstance(top, dict) or top.get("v") != VERSION:
        raise MalformedError("its index is not of a version known here; a newer version of this program may read it")
    if set(top) != {"v", "kind", "made_by", "secret", "environments", "items", "requests", "artifacts"}:
        raise MalformedError("its index has other fields than it should")
    kind = top["kind"]
    if kind not in get_args(Kind):
        raise MalformedError("its index names no kind known here")
    environments = {}
    for rows in _rows(top["environments"]):
        fields = {_text(name): _text(value) for name, value in (_row(row, 2) for row in _rows(rows))}
        check_environment(fields)
        environments[environment_id(fields)] = fields
    items: dict[Digest, tuple[int, int]] = {}
    begin = len(MAGIC)
    for digest, size in (_row(row, 2) for row in _rows(top["items"])):
        if type(size) is not int or not 0 <= size <= MAX_BLOB_BYTES or parse_digest(_text(digest)) in items:
            raise MalformedError("an item has no possible size, or is there twice")
        items[Digest(digest)] = (begin, size)
        begin += size
    if begin != end:
        raise MalformedError(f"its items have {begin - len(MAGIC)} bytes, and the index says {end - len(MAGIC)}")
    requests, artifacts = [], []
    for environment, key, graph, program in (_row(row, 4) for row in _rows(top["requests"])):
        request = Request(
            environment=parse_digest(_text(environment)),
            key=_text(key, MAX_KEY_TEXT),
            graph=parse_digest(_text(graph)),
            program=_text(program, MAX_NAME_TEXT),
        )
        _check_item(items, request.graph, MAX_GRAPH_BYTES)
        requests.append(request)
    for manifest, environment, program in (_row(row, 3) for row in _rows(top["artifacts"])):
        artifact = Packed(
            manifest=parse_digest(_text(manifest)),
            environment=parse_digest(_text(environment)),
            program=_text(program, MAX_NAME_TEXT),
        )
        _check_item(items, artifact.manifest, MAX_MANIFEST_BYTES)
        artifacts.append(artifact)
    if not {one.environment for one in requests} | {one.environment for one in artifacts} <= environments.keys():
        raise MalformedError("it holds something of an environment that it does not name")
    index = Index(
        kind=kind,
        made_by=_text(top["made_by"], MAX_NAME_TEXT),
        secret=_text(top["secret"], MAX_NAME_TEXT),
        environments=environments,
        requests=tuple(requests),
        artifacts=tuple(artifacts),
    )
    return index, items


def _check_item(items: Mapping[Digest, tuple[int, int]], digest: Digest, max_bytes: int) -> None:
    if digest not in items or items[digest][1] > max_bytes:
        raise MalformedError(f"item {digest[:12]} is missing or too large")


def _rows(value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MAX_ENTRIES:
        raise MalformedError(f"its index has a list of at most {_MAX_ENTRIES} where there is none")
    return value


def _row(value: Any, parts: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != parts:
        raise MalformedError(f"a row of its index has not {parts} parts")
    return value


def _text(value: Any, most: int = MAX_ENVIRONMENT_TEXT) -> str:
    if not isinstance(value, str) or len(value) > most:
        raise MalformedError(f"its index has something else than text of at most {most} characters")
    return value
