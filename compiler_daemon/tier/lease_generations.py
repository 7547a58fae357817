"""Leases on an engine that can create a name only once, and nothing more: a directory, a bucket.

`lease/<sha>/0` is created by who takes the lease, and removed when it is released. While it is held, its holder
overwrites `beat/<sha>/0`; one who waits and has not seen the beat change for the whole TTL, by its own monotonic clock,
creates `lease/<sha>/1`, and so on: of several who wait, one can. Nobody's wall clock is compared with another's.

A holder that was stopped and wakes sees that the next generation came after its own, and has lost. What it still does
is harmless: a lease spares work, it protects nothing (docs/decisions/0016).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from compiler_daemon.errors import TooLargeError
from compiler_daemon.tier.address import beat_name, lease_name
from compiler_daemon.tier.engines import Engine
from compiler_daemon.tier.lease_records import MAX_RECORD_BYTES, Beat, LeaseRecord

Clock = Callable[[], float]
"""Returns monotonic seconds."""

_MOST_GENERATIONS = 64
"""Of one lease; more dead holders in a row are a tier that somebody fills with junk."""

_MAX_WATCHED = 4096


@dataclass(frozen=True, slots=True)
class Taken:
    """The lease is ours."""

    record: LeaseRecord
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Occupied:
    """Somebody else's."""

    record: LeaseRecord | None
    """None where it cannot be read."""
    left_s: float
    """When it would run out without another sign of life."""


@dataclass(slots=True)
class _Watched:
    generation: int
    contents: tuple[bytes, bytes]
    since: float
    looked: float


class GenerationLeases:
    """Takes, renews and removes leases by names that are created once."""

    def __init__(self, engine: Engine, ttl_s: float, clock: Clock = time.monotonic) -> None:
        self._engine = engine
        self._ttl_s = ttl_s
        self._clock = clock
        self._watched: dict[str, _Watched] = {}

    async def take(self, sha: str, record: LeaseRecord) -> Taken | Occupied:
        """Take a lease that is free or has run out; raise `TierError` where the tier does not answer."""
        watched = self._watched.get(sha)
        generation = watched.generation if watched else 0
        if watched is None and await self._create(sha, 0, record):
            return Taken(record)
        while generation < _MOST_GENERATIONS:
            contents = await self._contents(sha, generation)
            if contents is None:  # released meanwhile, with all generations
                self._watched.pop(sha, None)
                return Taken(record) if await self._create(sha, 0, record) else Occupied(None, 0.0)
            holder = LeaseRecord.read(contents[0])
            if holder is not None and holder.token == record.token:  # an answer that got lost
                return Taken(holder, generation)
            left_s = self._left_s(sha, generation, contents)
            if left_s > 0 and not await self._has_successor(sha, generation, holder):
                return Occupied(holder, left_s)
            if left_s <= 0:
                mine = replace(record, after=holder.token if holder else "")
                if await self._create(sha, generation + 1, mine):
                    self._watched.pop(sha, None)
                    return Taken(mine, generation + 1)
            generation += 1
        return Occupied(None, self._ttl_s)

    async def renew(self, sha: str, taken: Taken, number: int) -> bool:
        """Say that the holder lives; return False where the lease is not its own any more."""
        own, followed = await asyncio.gather(
            self._read(lease_name(sha, taken.generation)), self._has_successor(sha, taken.generation, taken.record)
        )
        holder = LeaseRecord.read(own or b"")
        if holder is None or holder.token != taken.record.token or followed:
            return False
        beat = Beat(token=taken.record.token, number=number)
        await self._engine.replace(beat_name(sha, taken.generation), beat.write())
        return True

    async def remove(self, sha: str, taken: Taken) -> bool:
        """Release a lease; return False, removing nothing, where it is not the holder's own any more."""
        holder = LeaseRecord.read(await self._read(lease_name(sha, taken.generation)) or b"")
        if holder is None or holder.token != taken.record.token:
            return False
        # Upwards: who finds the first one free may hold it, whatever happens to those after it.
        for generation in range(taken.generation + 1):
            await self._engine.delete(beat_name(sha, generation))
            await self._engine.delete(lease_name(sha, generation))
        return True

    async def _create(self, sha: str, generation: int, record: LeaseRecord) -> bool:
        return await self._engine.create(lease_name(sha, generation), record.write())

    async def _has_successor(self, sha: str, generation: int, holder: LeaseRecord | None) -> bool:
        """Return whether the next generation is of one who found that this one had run out.

        One that a killed process has left from another time came after somebody else.
        """
        data = await self._read(lease_name(sha, generation + 1))
        if data is None or holder is None:
            return data is not None
        successor = LeaseRecord.read(data)
        return successor is not None and successor.after == holder.token

    async def _contents(self, sha: str, generation: int) -> tuple[bytes, bytes] | None:
        lease, beat = await asyncio.gather(
            self._read(lease_name(sha, generation)), self._read(beat_name(sha, generation))
        )
        return None if lease is None else (lease, beat or b"")

    async def _read(self, name: str) -> bytes | None:
        try:
            return await self._engine.get(name, MAX_RECORD_BYTES)
        except TooLargeError:
            return b""  # none of ours, and there

    def _left_s(self, sha: str, generation: int, contents: tuple[bytes, bytes]) -> float:
        now, watched = self._clock(), self._watched.get(sha)
        if watched is None or watched.generation != generation:
            while len(self._watched) >= _MAX_WATCHED:
                del self._watched[next(iter(self._watched))]
            self._watched[sha] = watched = _Watched(generation, contents, now, now)
        elif watched.contents != contents:
            # The sign of life may be as old as the look before. Counted from there, within bounds, a lease is taken
            # over in time by one who looks seldom, and still outlasts two beats that are late.
            watched.since = max(watched.looked, now - self._ttl_s / 4)
            watched.contents = contents
        watched.looked = now
        return watched.since + self._ttl_s - now
