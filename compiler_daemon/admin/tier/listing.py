"""What each object of a tier says of itself, from its header alone: a few thousand bytes of each, and not verified."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from compile_wire.plain import plain
from compiler_daemon.admin.tier.contents import Progress, StoredObject, by_key
from compiler_daemon.tier.engines import Engine
from compiler_daemon.tier.header import MAX_HEADER_BYTES, read_header
from compiler_daemon.tier.object_errors import ObjectError

_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One object as `tier ls` lists it; `--json` prints it as it is."""

    name: str
    kind: str
    """`artifact`, `facts`, or empty for what is neither."""
    environment: str
    key: str
    """torch's, as the object says."""
    slot: int
    size: int
    age_s: float
    signer: str = ""
    origin: str = ""
    host: str = ""
    time: int = 0
    """When it was signed, as the object says, in seconds since the epoch."""
    unreadable: str = ""
    """Why its header says nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """How much is in a tier."""

    artifacts: int
    keys: int
    environments: int
    facts: int
    others: int
    bytes: int
    oldest_s: float


async def rows(engine: Engine, objects: Sequence[StoredObject], progress: Progress) -> list[Row]:
    """Return what the objects say of themselves; raise `TierError`. One that went meanwhile is left out."""
    gate, done = asyncio.Semaphore(_AT_ONCE), 0

    async def read(one: StoredObject) -> Row | None:
        nonlocal done
        async with gate:
            data = await engine.begin(one.name, min(one.size, MAX_HEADER_BYTES)) if one.size else b""
        done += 1
        progress(done, len(objects))
        return _row(one, data) if data is not None else None

    return [row for row in await asyncio.gather(*map(read, objects)) if row is not None]


def summary(objects: Sequence[StoredObject]) -> Summary:
    """Return how much is there."""
    keys = by_key(objects)
    return Summary(
        artifacts=sum(map(len, keys.values())),
        keys=len(keys),
        environments=len({environment for _, environment, _ in keys}),
        facts=sum(one.kind == "facts" for one in objects),
        others=sum(one.kind is None for one in objects),
        bytes=sum(one.size for one in objects),
        oldest_s=max((one.age_s for one in objects), default=0.0),
    )


def _row(one: StoredObject, data: bytes) -> Row:
    known = {
        "name": plain(one.name),
        "kind": one.kind or "",
        "environment": one.environment,
        "slot": one.slot,
        "size": one.size,
        "age_s": round(one.age_s, 3),
    }
    try:
        statement = read_header(data).statement
    except ObjectError as error:
        return Row(**known, key="", unreadable=str(error))  # type: ignore[arg-type]
    return Row(
        **known,  # type: ignore[arg-type]
        key=statement.key,
        signer=statement.signer,
        origin=statement.origin,
        host=statement.host,
        time=statement.time,
    )
