"""Single flight over all nodes: who compiles a graph that the tier does not have, and who waits for it.

A lease is for efficiency. Whoever compiles without one, because the tier hangs or because it was stopped for longer
than the lease lasts, makes an artifact that is as valid as the other; which of them all ranks run is decided by the
slot, which is created once. So there is no fencing, and no error here may keep a graph from being compiled.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from compiler_daemon.errors import TierError, TooLargeError
from compiler_daemon.tier.address import refused_name
from compiler_daemon.tier.engines import Engine
from compiler_daemon.tier.lease_generations import Clock, GenerationLeases, Occupied, Taken
from compiler_daemon.tier.lease_locks import LockLeases, Locks
from compiler_daemon.tier.lease_records import MAX_RECORD_BYTES, LeaseRecord, Marker, shortened, this_host

MOST_DEATHS = 2
"""Workers that one graph may kill in the whole fleet before nobody tries it for a while."""

_CLOSE_S = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseConfig:
    """Configures how long leases last and how often one who waits looks."""

    ttl_s: float = 10.0
    beat_s: float = 3.0
    first_wait_s: float = 0.2
    longest_wait_s: float = 2.0
    refused_s: float = 60.0
    deadly_s: float = 3600.0
    """How long it is remembered that a graph has killed workers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """Somebody else compiles it. Look into the tier, then ask again, after `look_again_s`."""

    host: str
    """Empty where it cannot be read."""
    since: float
    """Of the holder's wall clock: for people."""
    expected_s: float
    look_again_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A node has tried it and was refused, or it has killed workers: trying again would end the same way."""

    reason: str
    deaths: int


class _Store(Protocol):
    async def take(self, sha: str, record: LeaseRecord) -> Taken | Occupied: ...
    async def renew(self, sha: str, taken: Taken, number: int) -> bool: ...
    async def remove(self, sha: str, taken: Taken) -> bool: ...


class Held:
    """A lease of ours, renewed in the background until it is released or lost."""

    def __init__(self, leases: Leases, sha: str, taken: Taken, deaths: int) -> None:
        self.sha = sha
        self.deaths = deaths
        """Workers that this graph has killed so far, anywhere."""
        self._leases = leases
        self._taken = taken
        self._number = 0
        self._lost = False
        self._renewing = asyncio.create_task(self._renew_on(), name=f"lease {sha[:12]}")

    @property
    def lost(self) -> bool:
        """Whether somebody else may compile it by now. What is under way may be finished: it will do no harm."""
        return self._lost

    async def renew(self) -> bool:
        """Say that the holder lives; return False where the lease is lost. Raises `TierError`."""
        if not self._lost:
            self._number += 1
            self._lost = not await self._leases.store.renew(self.sha, self._taken, self._number)
        return not self._lost

    async def release(self, *, compiled: bool = False) -> None:
        """Let the next one have it, once the artifact is there for all. Raises `TierError`: then it runs out.

        A compile that succeeded forgives what the graph has done before.
        """
        await self._stop()
        if compiled and self.deaths:
            await self._leases.unmark(self.sha)
        if not self._lost:
            self._lost = True
            await self._leases.store.remove(self.sha, self._taken)

    async def refuse(self, reason: str) -> None:
        """Release it, and spare the others the attempt for a while. Raises `TierError`."""
        try:
            await self._leases.mark(self.sha, reason, self.deaths, self._leases.config.refused_s)
        finally:
            await self.release()

    async def worker_died(self, reason: str) -> bool:
        """Note that the graph has killed a worker; return whether it may be tried again, by whomever.

        Written before anything is tried again, so that it is known also where this node goes next. Raises `TierError`.
        """
        self.deaths += 1
        again = self.deaths < MOST_DEATHS
        why = "" if again else f"this graph has killed {self.deaths} workers: {reason}"
        await self._leases.mark(self.sha, why, self.deaths, self._leases.config.deadly_s)
        return again

    async def _stop(self) -> None:
        self._leases.forget(self)
        self._renewing.cancel()
        await asyncio.gather(self._renewing, return_exceptions=True)

    async def _renew_on(self) -> None:
        while not self._lost:
            await asyncio.sleep(self._leases.config.beat_s)
            with contextlib.suppress(TierError):  # it may answer again before the lease runs out
                await self.renew()


class Leases:
    """All leases of one daemon on one tier."""

    def __init__(
        self,
        engine: Engine,
        config: LeaseConfig | None = None,
        clock: Clock = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.config = config or LeaseConfig()
        ttl_s = self.config.ttl_s
        self.store: _Store = (
            LockLeases(engine, ttl_s) if isinstance(engine, Locks) else GenerationLeases(engine, ttl_s, clock)
        )
        self._engine = engine
        self._jitter = jitter
        self._waits: dict[str, float] = {}
        self._held: set[Held] = set()
        self._tokens: dict[str, str] = {}

    async def acquire(self, sha: str, expected_s: float = 0.0) -> Held | Waiting | Refused:
        """Take the lease of a compile, or say who has it, or why nobody should try.

        `expected_s` is how long this node believes that it would take. Raises `TierError`: then compile without.
        """
        marker = await self._marker(sha)
        if marker is not None and marker.reason:
            self._waits.pop(sha, None)
            return Refused(reason=marker.reason, deaths=marker.deaths)
        # One token for all attempts, so that a lease is known again whose creation was not answered.
        token = self._tokens.setdefault(sha, secrets.token_hex(16))
        record = LeaseRecord(token=token, host=this_host(), since=time.time(), expected_s=expected_s)
        result = await self.store.take(sha, record)
        if isinstance(result, Taken):
            self.left(sha)
            held = Held(self, sha, result, marker.deaths if marker else 0)
            self._held.add(held)
            return held
        return self._waiting(sha, result)

    def left(self, sha: str) -> None:
        """Forget that this node has waited for a compile: the artifact came, or nobody waits any more."""
        self._waits.pop(sha, None)
        self._tokens.pop(sha, None)

    async def close(self) -> None:
        """Release everything, so that others need not wait for it to run out: at SIGTERM, after a drain."""
        held = list(self._held)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.gather(*(each.release() for each in held), return_exceptions=True)

    def forget(self, held: Held) -> None:
        """Count a lease as ours no more."""
        self._held.discard(held)

    async def mark(self, sha: str, reason: str, deaths: int, lasts_s: float) -> None:
        """Leave a marker for all who would try the same. Raises `TierError`."""
        marker = Marker(reason=shortened(reason), deaths=deaths, at=time.time(), lasts_s=lasts_s)
        await self._engine.replace(refused_name(sha), marker.write(), lives_s=lasts_s)

    async def unmark(self, sha: str) -> None:
        """Take a marker back. Raises `TierError`."""
        await self._engine.delete(refused_name(sha))

    async def _marker(self, sha: str) -> Marker | None:
        try:
            data = await self._engine.get(refused_name(sha), MAX_RECORD_BYTES)
        except TooLargeError:
            return None
        marker = Marker.read(data) if data else None
        return marker if marker is not None and marker.holds() else None

    def _waiting(self, sha: str, occupied: Occupied) -> Waiting:
        wait_s = self._waits.get(sha, self.config.first_wait_s)
        self._waits[sha] = min(wait_s * 1.5, self.config.longest_wait_s)
        jittered_s = wait_s * (0.75 + 0.5 * self._jitter())
        # Not later than it could run out, nor all at that moment.
        soonest_s = occupied.left_s + 0.05 + 0.2 * self._jitter()
        record = occupied.record
        return Waiting(
            host=record.host if record else "",
            since=record.since if record else 0.0,
            expected_s=record.expected_s if record else 0.0,
            look_again_s=min(jittered_s, soonest_s),
        )
