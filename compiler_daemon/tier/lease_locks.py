"""Leases on an engine with locks that end by themselves: Redis. Renewed and removed only by who put them there."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from compiler_daemon.tier.address import lease_name
from compiler_daemon.tier.lease_generations import Occupied, Taken
from compiler_daemon.tier.lease_records import LeaseRecord


@runtime_checkable
class Locks(Protocol):
    """An engine whose values can end by themselves, and be changed only by who put them there."""

    async def take(self, name: str, value: bytes, lives_s: float) -> tuple[bytes, float]:
        """Put a value under a free name for a while; return what is there now, ours or not, and how long it stays."""
        ...

    async def extend(self, name: str, value: bytes, lives_s: float) -> bool:
        """Put the end of a value off; return False where it is not there any more."""
        ...

    async def drop(self, name: str, value: bytes) -> bool:
        """Remove a value; return False where it is not there any more."""
        ...


class LockLeases:
    """Takes, renews and removes leases by locks."""

    def __init__(self, locks: Locks, ttl_s: float) -> None:
        self._locks = locks
        self._ttl_s = ttl_s

    async def take(self, sha: str, record: LeaseRecord) -> Taken | Occupied:
        """Take a lease that is free; raise `TierError` where the tier does not answer."""
        there, left_s = await self._locks.take(lease_name(sha), record.write(), self._ttl_s)
        holder = LeaseRecord.read(there)
        if holder is not None and holder.token == record.token:
            return Taken(holder)
        return Occupied(holder, left_s)

    async def renew(self, sha: str, taken: Taken, number: int) -> bool:
        """Say that the holder lives; return False where the lease is not its own any more."""
        return await self._locks.extend(lease_name(sha), taken.record.write(), self._ttl_s)

    async def remove(self, sha: str, taken: Taken) -> bool:
        """Release a lease; return False, removing nothing, where it is not the holder's own any more."""
        return await self._locks.drop(lease_name(sha), taken.record.write())
