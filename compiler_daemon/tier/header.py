"""What stands before the body of an object of the tier: signatures, and the statement that they are over.

    magic (8)   version (1)   length of the signatures (2)   length of the statement (2)   signatures   statement   body

Numbers are big-endian; signatures and statement are msgpack in one form only. The statement names the body by its
length and SHA-256, so that a signature over it is one over every byte of the object but the signatures, and a changed
signature does not fit. Guarantees: `read_header` looks at no more than `MAX_HEADER_BYTES`, whatever the object says of
itself, decompresses nothing and verifies nothing.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from compile_wire.digest import Digest, parse_digest
from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_ARTIFACT_BYTES, MAX_GRAPH_BYTES, MAX_KEY_TEXT, MAX_MANIFEST_BYTES
from compile_wire.manifest import Origin
from compile_wire.packing import pack, unpack
from compile_wire.plain import is_plain
from compiler_daemon.errors import KeysError
from compiler_daemon.tier.ed25519 import KEY_BYTES, SIGNATURE_BYTES
from compiler_daemon.tier.object_errors import MalformedObjectError, ObjectTooLargeError
from compiler_daemon.tier.signers import MAX_NAME_TEXT, Signer, check_signer_name

Purpose = Literal["artifact", "facts"]

MAGIC = b"\x89CDTIER\n"
"""Not text, and broken by whatever changes line ends."""
VERSION = 1

MAX_SIGNATURES = 8
MAX_HOST_TEXT = 255
MAX_PACKED_BYTES = 512 * 2**20
"""Of a body. Artifacts have 10 to 100 KB; the largest that were ever seen, tens of megabytes."""
MAX_UNPACKED_BYTES = MAX_ARTIFACT_BYTES + MAX_MANIFEST_BYTES + MAX_GRAPH_BYTES
"""Of all that is in a body together: as much as a client takes of one artifact."""

_MAX_SIGNATURES_BYTES = 2048
_MAX_STATEMENT_BYTES = 4096
_FIXED_BYTES = len(MAGIC) + 1 + 2 + 2
MAX_HEADER_BYTES = _FIXED_BYTES + _MAX_SIGNATURES_BYTES + _MAX_STATEMENT_BYTES

_MAX_MOMENT = 2**53
_NO_HOST = re.compile(r"[^A-Za-z0-9.:_-]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """What a signer says of an object."""

    purpose: Purpose
    key: str
    """torch's; empty for facts."""
    environment: Digest
    manifest: str
    """Digest of the manifest; empty for facts."""
    graph: str
    """Digest of the graph in the body; empty where there is none."""
    facts: str
    """Digest of the facts of the environment: those in the body, or that its maker had; empty where it had none."""
    body: Digest
    """Of the body, as it is: compressed."""
    packed: int
    """Bytes of the body."""
    unpacked: int
    """Bytes of what is in it."""
    manifest_size: int
    graph_size: int
    origin: Origin
    """As in the manifest; facts are a worker's."""
    signer: str
    """Name of whoever packed the object."""
    host: str
    """Machine that it was packed on; for messages."""
    time: int
    """When, in seconds since the epoch; for messages."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature over a statement, with the key that it says it is by. The key proves nothing: anybody has one."""

    signer: Signer
    signature: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """All that stands before the body. Nothing in it is verified."""

    statement: Statement
    signed: bytes
    """The statement's bytes."""
    signatures: tuple[Signature, ...]
    body_begin: int


def host_text(host: str) -> str:
    """Return the name of a machine as it may stand in a message, which must not be able to say anything else."""
    return _NO_HOST.sub("_", host)[:MAX_HOST_TEXT]


def text_to_sign(name: str, statement: bytes) -> bytes:
    """Return what a signature is over: the purpose of it all, who signs, and the statement."""
    who = name.encode()
    return MAGIC + bytes([VERSION, len(who)]) + who + statement


def encode_statement(statement: Statement) -> bytes:
    """Return the one form of a statement; raise `ObjectError` for one that would not be read."""
    data = pack(asdict(statement))
    _statement(data)
    return data


def encode_header(statement: bytes, signatures: tuple[Signature, ...]) -> bytes:
    """Return what stands before the body."""
    packed = _packed_signatures(signatures)
    _signatures(packed)
    lengths = len(packed).to_bytes(2, "big") + len(statement).to_bytes(2, "big")
    return MAGIC + bytes([VERSION]) + lengths + packed + statement


def read_header(data: bytes) -> Header:
    """Return the header of an object, of which the first `MAX_HEADER_BYTES` are enough.

    Raises `MalformedObjectError`, or `ObjectTooLargeError` where it announces more than is taken.
    """
    if not data.startswith(MAGIC):
        raise MalformedObjectError("it is no object of a tier")
    if len(data) < _FIXED_BYTES:
        raise MalformedObjectError("it is cut short")
    version, at = data[len(MAGIC)], len(MAGIC) + 1
    if version != VERSION:
        raise MalformedObjectError(f"it has version {version} of the form, which a later version of this program reads")
    lengths = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
    if lengths[0] > _MAX_SIGNATURES_BYTES or lengths[1] > _MAX_STATEMENT_BYTES:
        raise MalformedObjectError(f"its header announces {sum(lengths)} bytes")
    begin = _FIXED_BYTES + lengths[0]
    end = begin + lengths[1]
    if end > len(data):
        raise MalformedObjectError("it is cut short")
    signed = data[begin:end]
    return Header(
        signatures=_signatures(data[_FIXED_BYTES:begin]),
        statement=_statement(signed),
        signed=signed,
        body_begin=end,
    )


def _packed_signatures(signatures: tuple[Signature, ...]) -> bytes:
    return pack([[one.signer.name, one.signer.public, one.signature] for one in signatures])


def _signatures(data: bytes) -> tuple[Signature, ...]:
    rows = _unpacked(data, _MAX_SIGNATURES_BYTES, "the list of signatures", MAX_SIGNATURES + 2)
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_SIGNATURES:
        raise MalformedObjectError(f"an object has 1 to {MAX_SIGNATURES} signatures")
    signatures = tuple(_signature(row) for row in rows)
    if len({one.signer.name for one in signatures}) != len(signatures):
        raise MalformedObjectError("a signer has signed twice")
    if _packed_signatures(signatures) != data:
        raise MalformedObjectError("the signatures are not in their one form")
    return signatures


def _signature(row: Any) -> Signature:
    if not isinstance(row, list) or len(row) != 3:
        raise MalformedObjectError("a signature is [name, public key, signature]")
    name, public, signature = row
    for value, length in ((public, KEY_BYTES), (signature, SIGNATURE_BYTES)):
        if not isinstance(value, bytes) or len(value) != length:
            raise MalformedObjectError("a signature or its key has another length than it should")
    return Signature(Signer(_signer_name(name), public), signature)


def _statement(data: bytes) -> Statement:
    given = _unpacked(data, _MAX_STATEMENT_BYTES, "the statement", 1)
    if not isinstance(given, dict) or set(given) != {one.name for one in fields(Statement)}:
        raise MalformedObjectError("the statement has other fields than it should")
    _one_of(given, "purpose", get_args(Purpose))
    _one_of(given, "origin", get_args(Origin))
    for name, most in (("key", MAX_KEY_TEXT), ("host", MAX_HOST_TEXT), ("signer", MAX_NAME_TEXT)):
        if not isinstance(given[name], str) or len(given[name]) > most or not is_plain(given[name]):
            raise MalformedObjectError(f"the statement's {name} is not plain text of at most {most} characters")
    if given["host"] != host_text(given["host"]):
        raise MalformedObjectError("the statement's host is none")
    _signer_name(given["signer"])
    for name in ("environment", "body", "manifest", "graph", "facts"):
        _check_digest_text(given[name], name, may_be_empty=name in {"manifest", "graph", "facts"})
    for name in ("packed", "unpacked", "manifest_size", "graph_size", "time"):
        if type(given[name]) is not int or not 0 <= given[name] <= _MAX_MOMENT:
            raise MalformedObjectError(f"the statement's {name} is no number that it can be")
    statement = Statement(**given)
    _check_sizes(statement)
    if pack(asdict(statement)) != data:
        raise MalformedObjectError("the statement is not in its one form")
    return statement


def _check_sizes(statement: Statement) -> None:
    """Raise `ObjectTooLargeError` for what is not taken, `MalformedObjectError` for what contradicts itself."""
    for what, size, most in (
        ("a body", statement.packed, MAX_PACKED_BYTES),
        ("a content", statement.unpacked, MAX_UNPACKED_BYTES),
        ("a manifest", statement.manifest_size, MAX_MANIFEST_BYTES),
        ("a graph", statement.graph_size, MAX_GRAPH_BYTES),
    ):
        if size > most:
            raise ObjectTooLargeError(f"it announces {what} of {size} bytes, more than {most}")
    is_artifact = statement.purpose == "artifact"
    contradicts = (
        statement.manifest_size + statement.graph_size > statement.unpacked,
        bool(statement.graph_size) != bool(statement.graph),
        bool(statement.manifest_size) != bool(statement.manifest) or bool(statement.manifest) != is_artifact,
        bool(statement.key) != is_artifact,
        not is_artifact and bool(statement.graph or not statement.facts or statement.origin != "worker"),
    )
    if any(contradicts):
        raise MalformedObjectError(f"the statement contradicts itself, or is none about {statement.purpose}")


def _unpacked(data: bytes, max_bytes: int, what: str, max_lists: int) -> Any:
    try:
        return unpack(data, max_bytes=max_bytes, what=what, max_lists=max_lists)
    except MalformedError as error:
        raise MalformedObjectError(str(error)) from error


def _one_of(given: dict[str, Any], name: str, choices: tuple[str, ...]) -> None:
    if not isinstance(given[name], str) or given[name] not in choices:
        raise MalformedObjectError(f"the statement's {name} is one of {', '.join(choices)}")


def _signer_name(value: object) -> str:
    try:
        return check_signer_name(value if isinstance(value, str) else "")
    except KeysError as error:
        raise MalformedObjectError("a signer has no name that a signer can have") from error


def _check_digest_text(value: object, name: str, *, may_be_empty: bool) -> None:
    if value == "" and may_be_empty:
        return
    try:
        parse_digest(value if isinstance(value, str) else "")
    except MalformedError as error:
        raise MalformedObjectError(f"the statement's {name} is no digest") from error
