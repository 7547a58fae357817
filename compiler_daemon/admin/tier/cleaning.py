"""What goes from a tier, and that it goes by one hand: what nobody has used for long, the oldest first.

All slots of a key go together, the highest first, so that none is left that a lookup would not come to. One node cleans
at a time, by a lease. A Redis is not cleaned: it removes by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from compiler_daemon.admin.tier.contents import OpenTier, Progress, StoredObject, by_key, contents
from compiler_daemon.errors import TierError
from compiler_daemon.tier.address import cleaning_sha
from compiler_daemon.tier.engines import Engine
from compiler_daemon.tier.header import host_text
from compiler_daemon.tier.leases import Held, LeaseConfig, Leases, Waiting

_REMNANTS = ("lease/", "beat/", "refused/", "doctor/")
_PROGRAMS = "programs/"
_REMNANT_S = 86400.0
"""Leases and markers of that age are of nobody: the longest hold for an hour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What may stay."""

    older_than_s: float | None = None
    """What nobody has used for so long goes."""
    max_bytes: int | None = None
    """Then the oldest, until no more than this is left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to go, in the order in which it goes."""

    objects: tuple[StoredObject, ...]
    expired: int
    """Of these, for their age."""
    left_bytes: int
    environments: frozenset[str]
    """Of the artifacts that stay."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleaned:
    """What became of a cleaning; `--json` prints it as it is."""

    tier: str
    dry_run: bool
    removed: int = 0
    bytes: int = 0
    expired: int = 0
    """Of those that were removed: for their age, the others for room."""
    remnants: int = 0
    """Leases and markers that nobody holds any more."""
    left_bytes: int = 0
    expires_by_itself: bool = False
    cleaned_by: str = ""
    """The node that cleans it at this moment: nothing was done here."""
    has_ended_early: bool = False
    """Because another node has taken over."""


def plan(objects: Sequence[StoredObject], rules: Rules) -> Plan:
    """Say what goes. A key is as old as the youngest of its artifacts.

    Facts go with the last artifact of their environment, if they are old as well; what else lies there stays.
    """
    keys = sorted(by_key(objects).values(), key=lambda slots: -min(one.age_s for one in slots))
    left = sum(one.size for one in objects)
    going: list[StoredObject] = []
    expired = 0
    for slots in keys:
        is_old = rules.older_than_s is not None and min(one.age_s for one in slots) >= rules.older_than_s
        if not is_old and (rules.max_bytes is None or left <= rules.max_bytes):
            break  # all others are younger
        going += slots
        left -= sum(one.size for one in slots)
        expired += len(slots) if is_old else 0
    gone = {one.name for one in going}
    used = {slots[0].environment for slots in keys if slots[0].name not in gone}
    for one in objects:
        is_old = rules.older_than_s is not None and one.age_s >= rules.older_than_s
        if one.kind == "facts" and one.environment not in used and is_old:
            going.append(one)
            left -= one.size
            expired += 1
    return Plan(objects=tuple(going), expired=expired, left_bytes=left, environments=frozenset(used))


async def clean(
    tier: OpenTier,
    rules: Rules,
    *,
    dry_run: bool,
    progress: Progress,
    on_waiting: Callable[[str], None],
    leases: LeaseConfig | None = None,
) -> Cleaned:
    """Clean a tier, unless another node does; raise `TierError`.

    `on_waiting` is told whose lease there is, while it is watched whether its holder lives.
    """
    address = str(tier.address)
    if tier.expires_by_itself:
        return Cleaned(tier=address, dry_run=dry_run, expires_by_itself=True)
    if dry_run:
        going = plan(await contents(tier.engine), rules)
        return _cleaned(address, going, going.objects, dry_run=True)
    holding = Leases(tier.engine, leases)
    held = await _only_one(holding, on_waiting)
    if isinstance(held, str):
        return Cleaned(tier=address, dry_run=False, cleaned_by=held)
    try:
        going = plan(await contents(tier.engine), rules)
        gone = await removed(tier.engine, going.objects, progress, go_on=lambda: not held.lost)
        remnants = await _remnants(tier.engine, going.environments) if not held.lost else 0
        return _cleaned(address, going, gone, dry_run=False, remnants=remnants)
    finally:
        await holding.close()


async def removed(
    engine: Engine, objects: Sequence[StoredObject], progress: Progress, *, go_on: Callable[[], bool] = lambda: True
) -> Sequence[StoredObject]:
    """Remove objects in this order, as long as `go_on` says so; return those that went."""
    for done, one in enumerate(objects, start=1):
        if not go_on():
            return objects[: done - 1]
        await engine.delete(one.name)
        progress(done, len(objects))
    return objects


async def _only_one(leases: Leases, on_waiting: Callable[[str], None]) -> Held | str:
    """Take the lease of cleaning, or return who has it and lives.

    A lease whose holder was killed is taken over once nothing was heard of it for as long as it lasts.
    """
    end = asyncio.get_running_loop().time() + leases.config.ttl_s + leases.config.longest_wait_s
    told = False
    while True:
        taken = await leases.acquire(cleaning_sha())
        if isinstance(taken, Held):
            return taken
        waiting = taken if isinstance(taken, Waiting) else None
        host = host_text(waiting.host if waiting else "") or "another node"
        if asyncio.get_running_loop().time() > end:
            return host
        if not told:
            on_waiting(host)
            told = True
        await asyncio.sleep(waiting.look_again_s if waiting else leases.config.longest_wait_s)


async def _remnants(engine: Engine, staying: Collection[str]) -> int:
    """Remove what nobody holds any more, and lists of programs in environments of which no artifact is left."""
    count = 0
    for prefix in (*_REMNANTS, _PROGRAMS):
        for name in [stored.name async for stored in engine.names(prefix) if stored.age_s > _REMNANT_S]:
            if prefix == _PROGRAMS and name.split("/")[1] in staying:
                continue
            with contextlib.suppress(TierError, ValueError):  # it does no harm where it is
                await engine.delete(name)
                count += 1
    return count


def _cleaned(address: str, going: Plan, gone: Sequence[StoredObject], *, dry_run: bool, remnants: int = 0) -> Cleaned:
    size = sum(one.size for one in gone)
    return Cleaned(
        tier=address,
        dry_run=dry_run,
        removed=len(gone),
        bytes=size,
        expired=min(going.expired, len(gone)),
        remnants=remnants,
        left_bytes=going.left_bytes + sum(one.size for one in going.objects) - size,
        has_ended_early=len(gone) < len(going.objects),
    )
