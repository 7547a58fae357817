"""The wire bench's callers: processes that stay, each with some clients of each server, told what to read turn by turn.

A client of the daemon is the real one: it looks up, reads what did not come along, checks signature and digests. One
of redis is redis-py. One of the echo is bare gRPC that makes the same calls and looks at nothing: what the transport
costs.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from benches.harness.measure import BenchError
from benches.harness.processes import run_with_parent

T = TypeVar("T")
Target = Literal["daemon", "redis", "echo"]

MOST_PROCESSES = 4
"""More clients share processes, as the machine has few cores and a process with grpc takes 40 MB."""

_CALL_S = 60.0
_ANSWER_S = 300.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Held:
    """What a read of one key must bring."""

    bytes: int
    """Of all its blobs."""
    streamed: tuple[str, ...]
    """Digests of the blobs, where they are too large to come along with the lookup."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What one process does next."""

    target: Target
    clients: int
    held: Mapping[str, Held]
    """What to read, by key."""
    seconds: float
    calls: int
    """Of each client, at most; 0 is as many as the time allows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Places:
    """Where the servers are; None for those that are not asked."""

    daemon: Path | None = None
    """Its directory."""
    redis: Path | None = None
    """Its socket."""
    echo: str | None = None
    """Its address for gRPC."""


@dataclass(slots=True)
class Seen:
    """What the clients of a process saw in a turn."""

    ms: list[float] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""


class Reader(Protocol):
    """One client."""

    def read(self, key: str, held: Held) -> int:
        """Read what is under the key; return how many bytes it was. Raises where it cannot be used."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


class Callers:
    """Processes that make calls. Use as made by `callers`."""

    def __init__(self, pipes: Sequence[Pipe]) -> None:
        self._pipes = pipes

    def take(self, turn: Turn, look: Callable[[], None]) -> list[Seen]:
        """Have all clients of a turn, spread over the processes, read at once; `look` is called meanwhile."""
        share, more = divmod(turn.clients, min(turn.clients, len(self._pipes)))
        pipes = self._pipes[: min(turn.clients, len(self._pipes))]
        for number, pipe in enumerate(pipes):
            pipe.send(replace(turn, clients=share + (number < more)))
        self._answers(pipes, look)  # each is connected and has read once
        for pipe in pipes:
            pipe.send("go")
        seen: list[Seen] = self._answers(pipes, look)
        for part in seen:
            if part.error:
                raise BenchError(f"{turn.target}: {part.error}")
        return seen

    @staticmethod
    def _answers(pipes: Sequence[Pipe], look: Callable[[], None]) -> list[Any]:
        answers: dict[Pipe, Any] = {}
        deadline = time.monotonic() + _ANSWER_S
        while len(answers) < len(pipes):
            if time.monotonic() > deadline:
                raise BenchError("a process of callers does not answer")
            ready = wait([pipe for pipe in pipes if pipe not in answers], _LOOK_S)
            for pipe in (pipe for pipe in pipes if pipe in ready):
                try:
                    answers[pipe] = pipe.recv()
                except EOFError:
                    raise BenchError("a process of callers has died") from None
            look()
        return [answers[pipe] for pipe in pipes]


@contextmanager
def callers(places: Places, processes: int) -> Iterator[Callers]:
    """Run so many processes until the block ends."""
    context = multiprocessing.get_context("spawn")
    started: list[tuple[Any, Pipe]] = []
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=run_with_parent, args=(os.getpid(), call_when_told, places, theirs), daemon=True
            )
            process.start()
            theirs.close()
            started.append((process, ours))
        yield Callers([pipe for _, pipe in started])
    finally:
        for process, pipe in started:
            pipe.close()
            process.join(10)
            if process.is_alive():
                process.kill()


def call_when_told(places: Places, pipe: Pipe) -> None:
    """Take turns until the other end of the pipe is closed."""
    clients: dict[Target, list[Reader]] = {}
    try:
        while True:
            turn: Turn = pipe.recv()
            _take(turn, clients.setdefault(turn.target, []), places, pipe)
    except EOFError:
        for reader in (reader for readers in clients.values() for reader in readers):
            reader.close()


def _take(turn: Turn, readers: list[Reader], places: Places, pipe: Pipe) -> None:
    seen = Seen()
    with ThreadPoolExecutor(turn.clients) as threads:
        try:
            while len(readers) < turn.clients:
                readers.append(_reader(turn.target, places))
            list(threads.map(lambda reader: _checked(reader, turn, 0), readers[: turn.clients]))
        except Exception as error:  # noqa: BLE001 - whichever: it is handed in, and ends the bench
            seen.error = repr(error)
        pipe.send("ready")
        pipe.recv()
        if not seen.error:
            _read(turn, readers[: turn.clients], threads, seen)
    pipe.send(seen)


def _read(turn: Turn, readers: Sequence[Reader], threads: ThreadPoolExecutor, seen: Seen) -> None:
    begin = time.perf_counter()
    end = begin + turn.seconds

    def one(number: int, reader: Reader) -> list[float]:
        found: list[float] = []
        while not found or (time.perf_counter() < end and not (turn.calls and len(found) >= turn.calls)):
            asked = time.perf_counter()
            _checked(reader, turn, number + len(found))
            found.append((time.perf_counter() - asked) * 1000)
        return found

    try:
        for found in threads.map(one, range(len(readers)), readers):
            seen.ms += found
    except Exception as error:  # noqa: BLE001 - as above
        seen.error = repr(error)
    seen.seconds = time.perf_counter() - begin


def _checked(reader: Reader, turn: Turn, number: int) -> None:
    keys = list(turn.held)
    key = keys[number % len(keys)]
    if (size := reader.read(key, turn.held[key])) != turn.held[key].bytes:
        raise BenchError(f"{key} brought {size} bytes instead of {turn.held[key].bytes}")


def _reader(target: Target, places: Places) -> Reader:
    match target:
        case "daemon":
            return DaemonReader(_given(places.daemon))
        case "redis":
            return RedisReader(_given(places.redis))
        case "echo":
            return EchoReader(_given(places.echo))


class DaemonReader:
    """The real client, as a trainer has it."""

    def __init__(self, directory: Path) -> None:
        from benches.harness.synthetic import ENVIRONMENT
        from compile_client.testing import ClientConfig, DaemonClient

        config = ClientConfig(directory=directory, log_level=logging.CRITICAL + 1, answer_s=_CALL_S)
        self._client = DaemonClient(config, lambda: ENVIRONMENT, program="benches.wire", env={})

    def read(self, key: str, held: Held) -> int:
        """Look up, transfer, verify."""
        self._client.report.forget_failure()
        found = self._client.begin_graph(key).lookup()
        if len(found) != 1:
            raise BenchError(f"{key} is no hit: {self._client.report.last_failure() or 'nothing is stored'}")
        return sum(map(len, found[0].blobs.values()))

    def close(self) -> None:
        """Hang up."""
        self._client.close()


class RedisReader:
    """redis-py."""

    def __init__(self, path: Path) -> None:
        from redis import Redis

        self._redis = Redis(unix_socket_path=str(path), socket_timeout=_CALL_S)

    def read(self, key: str, held: Held) -> int:
        """GET."""
        data: Any = self._redis.get(key)
        return len(data or b"")

    def close(self) -> None:
        """Hang up."""
        self._redis.close()


class EchoReader:
    """Bare gRPC, the same calls."""

    def __init__(self, address: str) -> None:
        import grpc

        from benches.harness.daemon import OPTIONS
        from benches.harness.echo_server import LOOKUP, READ_BLOB
        from compile_wire.v1 import compiler_daemon_pb2 as pb

        self._pb = pb
        self._channel = grpc.insecure_channel(address, options=OPTIONS)
        self._lookup: Any = self._channel.unary_unary(LOOKUP)
        self._read_blob: Any = self._channel.unary_stream(READ_BLOB)

    def read(self, key: str, held: Held) -> int:
        """Make the calls, join the pieces, look at nothing."""
        answer = self._lookup(self._pb.LookupArtifactRequest(key=key).SerializeToString(), timeout=_CALL_S)
        brought = 0 if held.streamed else len(answer)
        for digest in held.streamed:
            request = self._pb.ReadBlobRequest(sha256=digest).SerializeToString()
            brought += len(b"".join(self._read_blob(request, timeout=_CALL_S)))
        return min(brought, held.bytes)  # messages are a little longer than what is in them

    def close(self) -> None:
        """Hang up."""
        self._channel.close()


def _given(place: T | None) -> T:
    assert place is not None, "a server that was not started is asked"
    return place
