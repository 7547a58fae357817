"""The load bench's processes: callers that are cheap enough not to be what is measured.

A caller does to an answer what the real client does before it uses it: parse, check the signature, decode the manifest,
hash every blob. It is written on raw gRPC in one loop, many connections to a process.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from typing import Any

import grpc
import grpc.aio

from benches.harness.daemon import OPTIONS
from benches.harness.echo_server import LOOKUP
from compile_client.testing import verified_blob, verified_manifest
from compile_wire.digest import Digest
from compile_wire.v1 import compiler_daemon_pb2 as pb

_CALL_S = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class CallerPlan:
    """What one process of callers does."""

    address: str
    metadata: tuple[tuple[str, str], ...]
    secret: bytes
    environment: Digest
    keys: tuple[str, ...]
    connections: int
    first: int
    """The number of its first connection, among those of all processes."""
    seconds: float
    calls: int
    """Of each connection, at most; 0 is as many as the time allows."""
    verify: bool = True


@dataclass(slots=True)
class Seen:
    """What the callers of a process saw."""

    answered_ms: list[float] = field(default_factory=list)
    """Until the answer was there."""
    verified_ms: list[float] = field(default_factory=list)
    """Until every byte of it was checked."""
    errors: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0


def call_in_a_process(plan: CallerPlan, together: Barrier, results: Queue[Seen]) -> None:
    """Wait for the other processes, make the calls, hand in what was seen."""
    results.put(asyncio.run(_call(plan, together)))


async def _call(plan: CallerPlan, together: Barrier) -> Seen:
    seen = Seen()
    # As from 64 processes: a channel of its own is a connection of its own.
    channels = [grpc.aio.insecure_channel(plan.address, options=OPTIONS) for _ in range(plan.connections)]
    try:
        calls: list[Any] = [channel.unary_unary(LOOKUP) for channel in channels]
        await asyncio.gather(*(_once(plan, call, 0, Seen()) for call in calls))
        await asyncio.to_thread(together.wait)
        begin, cpu = time.monotonic(), time.process_time()
        end = begin + plan.seconds
        await asyncio.gather(*(_caller(plan, call, plan.first + n, end, seen) for n, call in enumerate(calls)))
        seen.seconds, seen.cpu_s = time.monotonic() - begin, time.process_time() - cpu
    finally:
        for channel in channels:
            await channel.close()
    return seen


async def _caller(plan: CallerPlan, call: Any, number: int, end: float, seen: Seen) -> None:
    made = 0
    while time.monotonic() < end and not (plan.calls and made >= plan.calls):
        await _once(plan, call, number + made, seen)
        made += 1


async def _once(plan: CallerPlan, call: Any, number: int, seen: Seen) -> None:
    key = plan.keys[number % len(plan.keys)]
    request = pb.LookupArtifactRequest(environment_id=plan.environment, key=key).SerializeToString()
    begin = time.monotonic()
    try:
        answer = await call(request, timeout=_CALL_S, metadata=plan.metadata)
        seen.answered_ms.append((time.monotonic() - begin) * 1000)
        if plan.verify:
            _verify(plan, key, answer)
            seen.verified_ms.append((time.monotonic() - begin) * 1000)
    except grpc.aio.AioRpcError as error:
        seen.errors.append(f"{error.code().name}: {error.details()}")
    except Exception as error:  # noqa: BLE001 - whichever: an answer that cannot be used is what is counted
        seen.errors.append(repr(error))


def _verify(plan: CallerPlan, key: str, answer: bytes) -> None:
    """Do what `compile_client.transport.connection` does with an answer."""
    (entry,) = pb.LookupArtifactResponse.FromString(answer).entries
    manifest = verified_manifest(plan.secret, entry.signature, entry.manifest, key=key, environment=plan.environment)
    data = {blob.sha256: blob.data for blob in entry.blobs}
    for ref in manifest.blobs:
        verified_blob(data[ref.sha256], ref)
