"""What a worker says, read strictly: it runs torch on somebody's graph, so its words are checked like a client's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from compile_wire.digest import Digest, parse_digest
from compile_wire.environment import check_environment, environment_id
from compile_wire.errors import MalformedError
from compile_wire.facts import decode_facts
from compile_wire.limits import MAX_KEY_TEXT, MAX_NAME_TEXT
from compiler_daemon.errors import RefusalReason
from compiler_daemon.jobs import WorkerHello
from compiler_daemon.worker.protocol import WORKER_PROTOCOL

PHASES = frozenset({"rebuilding", "compiling", "packing"})

_MAX_MESSAGE_TEXT = 4096
_MAX_FIELDS = 64
_UNCONFINED = "unconfined"


@dataclass(frozen=True, slots=True)
class Progress:
    """The worker has begun another phase."""

    phase: str


@dataclass(frozen=True, slots=True)
class BlobFrame:
    """One blob of the artifact."""

    sha256: Digest
    data: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The artifact is complete."""

    manifest: bytes
    facts: bytes


@dataclass(frozen=True, slots=True)
class KeyResult:
    """The key that the worker's torch gives the graph; nothing was compiled."""

    key: str


@dataclass(frozen=True, slots=True)
class Warm:
    """Everything is made that a first job would wait for."""


@dataclass(frozen=True, slots=True)
class RefusedFrame:
    """The worker will not compile the graph, and lives on."""

    reason: RefusalReason
    message: str
    fields: tuple[str, ...]


def read_hello(message: Mapping[str, Any] | None) -> WorkerHello:
    """Return a worker's introduction; raise `MalformedError` where it is anything else."""
    if message is None or message.get("type") != "hello":
        raise MalformedError("the worker did not introduce itself")
    if message.get("protocol") != WORKER_PROTOCOL:
        raise MalformedError(f"the worker speaks protocol {message.get('protocol')!r:.40}, not {WORKER_PROTOCOL}")
    fields = message.get("environment")
    if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
        raise MalformedError("the worker's environment is no map of text to text")
    check_environment(fields)
    return WorkerHello(
        environment=environment_id(fields),
        fields=fields,
        facts=_facts(message),
        unconfined=_text({_UNCONFINED: "it does not say whether it is confined", **message}, _UNCONFINED),
    )


def read_reply(
    message: Mapping[str, Any] | None, job: int
) -> Progress | BlobFrame | Done | KeyResult | RefusedFrame | Warm:
    """Return what a worker says during the job; raise `MalformedError` where it must not say that."""
    if message is None:
        raise MalformedError("the worker ended in the middle of a job")
    if message.get("id") != job:
        raise MalformedError(f"the worker speaks of job {message.get('id')!r:.40}, not {job}")
    match message["type"]:
        case "progress":
            phase = _text(message, "phase")
            if phase not in PHASES:
                raise MalformedError(f"the worker is in an unknown phase: {phase[:40]!r}")
            return Progress(phase)
        case "blob":
            return BlobFrame(parse_digest(_text(message, "sha256")), _bytes(message, "data"))
        case "done":
            return Done(_bytes(message, "manifest"), _facts(message))
        case "keyed":
            return KeyResult(_key(message))
        case "refused":
            return _refused(message)
        case "warm":
            return Warm()
        case other:
            raise MalformedError(f"the worker sent an unknown frame: {other[:40]!r}")


def is_spent(message: Mapping[str, Any] | None) -> bool:
    """Return whether the worker says that a job has left something behind in it, so that it takes no other."""
    return message is not None and message.get("spent", False) is not False


def _refused(message: Mapping[str, Any]) -> RefusedFrame:
    reason = _text(message, "reason")
    if reason not in get_args(RefusalReason):
        raise MalformedError(f"the worker refused for an unknown reason: {reason[:40]!r}")
    fields = message.get("fields", [])
    if not isinstance(fields, list) or not all(isinstance(field, str) for field in fields):
        raise MalformedError("the fields of a refusal are a list of text")
    return RefusedFrame(
        cast("RefusalReason", reason),
        _text(message, "message", _MAX_MESSAGE_TEXT),
        tuple(field[:MAX_NAME_TEXT] for field in fields[:_MAX_FIELDS]),
    )


def _key(message: Mapping[str, Any]) -> str:
    key = message.get("key")
    if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY_TEXT:
        raise MalformedError(f"a key has from 1 to {MAX_KEY_TEXT} characters")
    return key


def _facts(message: Mapping[str, Any]) -> bytes:
    facts = _bytes(message, "facts")
    if facts:
        decode_facts(facts)
    return facts


def _text(message: Mapping[str, Any], name: str, max_length: int = MAX_NAME_TEXT) -> str:
    value = message.get(name)
    if not isinstance(value, str):
        raise MalformedError(f"{name} is text in a worker's frame")
    return value[:max_length]


def _bytes(message: Mapping[str, Any], name: str) -> bytes:
    value = message.get(name)
    if not isinstance(value, bytes):
        raise MalformedError(f"{name} is bytes in a worker's frame")
    return value
