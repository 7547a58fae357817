"""Requests for fuzzing, of every method that the schema has: valid ones, and valid ones with something broken in them.

Methods are found by their descriptors, so a new one is fuzzed without anybody thinking of it: its fields are filled by
their names and types. Each case follows from seed, method and number alone, so that it can be made again.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import fuzz_wire
from google.protobuf import message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from grpc_health.v1 import health_pb2

import compile_wire.v1
from compile_wire.digest import Digest, digest_of
from compile_wire.environment import environment_id
from compile_wire.limits import MAX_MESSAGE_BYTES, PROTOCOL_VERSION
from compile_wire.manifest import BlobRef, Manifest, encode_manifest
from compile_wire.v1 import compiler_daemon_pb2 as pb

FIELDS: Mapping[str, str] = {"python": "cp311", "torch": "0.fuzz"}
"""Of no machine, so that a graph that is sent for it never gets as far as a worker."""
ENVIRONMENT = environment_id(FIELDS)
KNOWN = 16
"""So many artifacts are stored before the fuzzing starts."""

ENDING = "compiler_daemon.v1.AdminService.Shutdown"
"""Does what it says where it is called with the token and parsed."""
WRONG_TOKEN = (("authorization", "Bearer 00"),)
_REACHES_WORKER = 1 / 500
_HUGE = 1 / 1000
_PLAIN = 0.1
_RANDOM_BYTES = 0.04
_BROKEN_BYTES = 0.2

_TEXTS = (
    "", "x", "\0", "é" * 40, "\u202e", "../../etc/passwd", "/nonexistent/python", "0" * 63, "0" * 64, "0" * 65,
    "A" * 64, "f" * 64, "-1", "9" * 400, "a" * 256, "a" * 257, "a" * 1024, "a" * 1025, "a" * 8193, "{}", "%s%n", "';--",
)  # fmt: skip
_NUMBERS = (
    0,
    1,
    2,
    63,
    64,
    65,
    4096,
    2**20,
    2**29,
    2**29 + 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: 31,
    FieldDescriptor.CPPTYPE_UINT32: 32,
    FieldDescriptor.CPPTYPE_INT64: 63,
    FieldDescriptor.CPPTYPE_UINT64: 64,
}


@dataclass(frozen=True, slots=True)
class Method:
    """One method of one service."""

    descriptor: MethodDescriptor

    @property
    def name(self) -> str:
        """Its name, as `CompileService.ReadBlob`."""
        return f"{self.descriptor.containing_service.name}.{self.descriptor.name}"

    @property
    def path(self) -> str:
        """Its name on the wire."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def streams(self) -> tuple[bool, bool]:
        """Whether the client and the server send several messages."""
        return bool(self.descriptor.client_streaming), bool(self.descriptor.server_streaming)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One call."""

    number: int
    messages: tuple[bytes, ...]
    manner: str
    """`plain`, or what else is wrong: `no token`, `wrong token`, `cancelled`, `hurried`."""


def methods() -> list[Method]:
    """Return every method of the schema's services, and those of the health service."""
    files = [health_pb2.DESCRIPTOR]
    files += [
        importlib.import_module(f"compile_wire.v1.{module.name}").DESCRIPTOR
        for module in pkgutil.iter_modules(compile_wire.v1.__path__)
        if module.name.endswith("_pb2")
    ]
    return [
        Method(method) for file in files for service in file.services_by_name.values() for method in service.methods
    ]


@dataclass(frozen=True, slots=True)
class Stored:
    """An artifact of the fuzz."""

    key: str
    blobs: tuple[bytes, ...]
    graph: bytes

    @property
    def manifest(self) -> bytes:
        """Its manifest."""
        return encode_manifest(
            Manifest(
                key=self.key,
                environment=ENVIRONMENT,
                guards="",
                graph=digest_of(self.graph),
                compile_s=1.5,
                origin="trainer",
                blobs=tuple(
                    BlobRef(
                        role="object" if place else "entry",
                        name=f"k{place}.so" if place else "",
                        sha256=digest_of(data),
                        size=len(data),
                    )
                    for place, data in enumerate(self.blobs)
                ),
            )
        )

    def request(self) -> pb.PublishArtifactRequest:
        """Return the request that publishes it."""
        return pb.PublishArtifactRequest(
            environment_id=ENVIRONMENT,
            key=self.key,
            manifest=self.manifest,
            blobs=[pb.Blob(sha256=digest_of(data), data=data) for data in self.blobs],
            graph=pb.Graph(data=self.graph),
            program="fuzz",
        )


def stored(number: int) -> Stored:
    """Return an artifact that follows from its number."""
    blobs = tuple(f"blob {number} {place} ".encode() * 40 for place in range(1 + number % 3))
    return Stored(f"fuzz-{number}", blobs, fuzz_wire._graph())


class Requests:
    """Makes cases. `true_environment` is one that a worker runs in; None where none does."""

    def __init__(self, seed: int, *, true_environment: Digest | None) -> None:
        self._seed = seed
        self._true_environment = true_environment
        self._known = [stored(number) for number in range(KNOWN)]
        self._manifests = tuple(one.manifest for one in self._known)
        self._graphs = (fuzz_wire._graph(),)
        self._random = random.Random()  # noqa: S311 - seeded for each case: a run must be repeatable

    def case(self, method: Method, number: int) -> Case:
        """Return the case of that number."""
        pick = self._random
        pick.seed(f"{self._seed} {method.name} {number}")
        messages = self._valid(method)
        if pick.random() >= _PLAIN:
            for _ in range(pick.choice((1, 1, 1, 2, 3))):
                if messages:
                    self._break(pick.choice(messages))
            if method.streams[0] and pick.random() < 0.3:
                messages = self._shuffled(messages)
        data = [self._broken_bytes(message.SerializeToString()) for message in messages]
        manner = self._manner()
        if method.descriptor.full_name == ENDING and all(_parses(method, part) for part in data):
            manner = pick.choice(("no token", "wrong token"))
        return Case(number=number, messages=tuple(data), manner=manner)

    def _manner(self) -> str:
        kind = self._random.random()
        if kind < 0.02:
            return "no token"
        if kind < 0.04:
            return "wrong token"
        if kind < 0.05:
            return "cancelled"
        return "hurried" if kind < 0.055 else "plain"

    def _valid(self, method: Method) -> list[Any]:
        pick = self._random
        one = pick.choice(self._known)
        environment = ENVIRONMENT
        data = pick.choice(one.blobs)
        match method.name:
            case "CompileService.Handshake":
                fields = {**FIELDS, "gpu": str(pick.randrange(500))} if pick.random() < 0.5 else FIELDS
                return [
                    pb.HandshakeRequest(
                        protocol_version=PROTOCOL_VERSION, client_version="0", environment=fields, program="fuzz"
                    )
                ]
            case "CompileService.LookupArtifact":
                have = [digest_of(one.manifest)] if pick.random() < 0.3 else []
                return [pb.LookupArtifactRequest(environment_id=environment, key=one.key, have=have)]
            case "CompileService.CompileGraph":
                if self._true_environment is not None and pick.random() < _REACHES_WORKER:
                    environment = self._true_environment
                graph = fuzz_wire.Mutator(pick, self._graphs).case() if pick.random() < 0.5 else one.graph
                content = pb.Graph(data=graph) if pick.random() < 0.8 else pb.Graph(sha256=digest_of(graph))
                key = one.key if pick.random() < 0.5 else f"unknown-{pick.randrange(1000)}"
                return [
                    pb.CompileGraphRequest(environment_id=environment, key=key, graph=content, have=[], program="fuzz")
                ]
            case "CompileService.PublishArtifact":
                return [stored(pick.randrange(4 * KNOWN)).request()]
            case "CompileService.ReadBlob":
                return [pb.ReadBlobRequest(sha256=digest_of(data))]
            case "CompileService.WriteBlob":
                if pick.random() < 0.05:
                    data = f"new {pick.randrange(1000)}".encode() * 30
                half = len(data) // 2
                first = pb.WriteBlobRequest(sha256=digest_of(data), size=len(data), data=data[:half])
                return [first, pb.WriteBlobRequest(data=data[half:])]
            case _:
                made = _new(method.descriptor.input_type)
                self._fill(made)
                return [made]

    def _fill(self, message: Any) -> None:
        """Give each field a value that it might have."""
        for field in message.DESCRIPTOR.fields:
            if self._random.random() < 0.7:
                self._set(message, field, self._plausible)

    def _break(self, message: Any) -> None:
        """Change one thing in a message."""
        fields = message.DESCRIPTOR.fields
        if not fields:
            return
        field = self._random.choice(fields)
        if field.message_type and not field.is_repeated and self._random.random() < 0.8:
            inner = getattr(message, field.name)
            inner.SetInParent()
            self._break(inner)
        else:
            self._set(message, field, self._odd)

    def _set(self, message: Any, field: FieldDescriptor, value: Callable[[FieldDescriptor], Any]) -> None:
        pick = self._random
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            self._set_map(message, field, value)
        elif field.is_repeated:
            held = getattr(message, field.name)
            match pick.randrange(4):
                case 0:
                    message.ClearField(field.name)
                case 1 if len(held):
                    held.extend([held[pick.randrange(len(held))]] * pick.choice((1, 2, 70)))
                case 2 if pick.random() < 0.05 and inner is None:
                    held.extend([value(field)] * 5000)
                case _ if inner is not None:
                    self._fill(held.add())
                case _:
                    held.extend(value(field) for _ in range(pick.choice((1, 1, 2, 65))))
        elif inner is not None:
            if pick.random() < 0.2:
                message.ClearField(field.name)
            else:
                getattr(message, field.name).SetInParent()
                self._fill(getattr(message, field.name))
        else:
            setattr(message, field.name, value(field))

    def _set_map(self, message: Any, field: FieldDescriptor, value: Callable[[FieldDescriptor], Any]) -> None:
        held = getattr(message, field.name)
        name, content = field.message_type.fields
        for _ in range(self._random.choice((1, 1, 2, 64, 65))):
            key = self._text() if name.cpp_type == FieldDescriptor.CPPTYPE_STRING else value(name)
            if content.message_type is not None:
                self._fill(held[key])
            else:
                held[key] = value(content)

    def _plausible(self, field: FieldDescriptor) -> Any:
        pick = self._random
        one = pick.choice(self._known)
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and pick.random() < 0.8:
            if field.type == FieldDescriptor.TYPE_BYTES:
                return pick.choice((one.manifest, one.graph, one.blobs[0]))
            if "environment" in field.name:
                return ENVIRONMENT
            if any(word in field.name for word in ("sha", "digest", "have", "manifest", "blob", "id")):
                return pick.choice((digest_of(one.manifest), digest_of(one.blobs[0]), digest_of(one.graph)))
            return pick.choice((one.key, "fuzz", "compiler_daemon.v1.CompileService", sys.executable))
        return self._odd(field)

    def _odd(self, field: FieldDescriptor) -> Any:
        pick = self._random
        if field.type == FieldDescriptor.TYPE_BYTES:
            return self._bytes()
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            return self._text()
        if field.cpp_type in _INTEGERS:
            number = pick.choice(_NUMBERS) % 2 ** _INTEGERS[field.cpp_type]
            return pick.choice((number, pick.randrange(100)))
        if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
            return pick.random() < 0.5
        if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
            return pick.choice((0, 1, 2, 99, -1))
        return pick.choice((0.0, -1.0, 1e308, float("inf"), float("nan")))

    def _text(self) -> str:
        pick = self._random
        if pick.random() < 0.3:
            return "".join(
                chr(pick.choice((pick.randrange(128), pick.randrange(0xD000)))) for _ in range(pick.randrange(80))
            )
        return pick.choice(_TEXTS)

    def _bytes(self) -> bytes:
        pick = self._random
        kind = pick.random()
        if kind < _HUGE:
            return bytes(pick.choice((MAX_MESSAGE_BYTES - 5000, MAX_MESSAGE_BYTES, 3 * 2**20, 2**20 + 1)))
        if kind < 0.4:
            return fuzz_wire.Mutator(pick, self._manifests[:2]).case()
        if kind < 0.6:
            return fuzz_wire.Mutator(pick, self._graphs).case()
        return pick.randbytes(pick.choice((0, 1, 32, 33, 200, 2000)))

    def _broken_bytes(self, data: bytes) -> bytes:
        pick = self._random
        kind = pick.random()
        if kind < _RANDOM_BYTES:
            return pick.randbytes(pick.choice((0, 1, 5, 50, 500)))
        if kind > _RANDOM_BYTES + _BROKEN_BYTES or not data:
            return data
        broken = bytearray(data)
        for _ in range(pick.choice((1, 1, 2, 5))):
            at = pick.randrange(len(broken) + 1)
            match pick.randrange(5):
                case 0:
                    broken[at : at + 1] = bytes([pick.randrange(256)])
                case 1:
                    del broken[at:]
                case 2:
                    del broken[at : at + pick.choice((1, 2, 8))]
                case 3:  # a length that lies, or a group that never ends
                    broken[at:at] = pick.choice((b"\x0a\xff\xff\xff\xff\x0f", b"\x0b", b"\x80" * 12, b"\x0a\x7f"))
                case _:
                    broken[at:at] = pick.randbytes(pick.choice((1, 4, 30)))
        return bytes(broken)

    def _shuffled(self, messages: list[Any]) -> list[Any]:
        pick = self._random
        match pick.randrange(5):
            case 0:
                return []
            case 1:
                return messages[1:]
            case 2:
                return messages[:1]
            case 3:
                return messages[::-1]
            case _:
                return messages * pick.choice((2, 3, 20))


def _new(descriptor: Any) -> Any:
    return message_factory.GetMessageClass(descriptor)()


def _parses(method: Method, data: bytes) -> bool:
    try:
        message_factory.GetMessageClass(method.descriptor.input_type).FromString(data)
    except Exception:  # noqa: BLE001 - of whichever kind: it does not parse
        return False
    return True
