"""What is in a tier: the names of its objects read back, and what belongs together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from compile_wire.digest import Digest, parse_digest
from compile_wire.errors import MalformedError
from compiler_daemon.errors import UsageError
from compiler_daemon.tier.address import SLOTS, TIER_VARIABLE, TierAddress, tier_at, tier_places
from compiler_daemon.tier.engines import Engine, Stored, open_engine
from compiler_daemon.tier.header import Purpose

Progress = Callable[[int, int], None]
"""Is told how many are done, of how many."""

_ARTIFACTS, _FACTS = "v1/", "facts/"
_SLOT_NAMES = {str(slot) for slot in range(SLOTS)}


@dataclass(frozen=True, slots=True)
class OpenTier:
    """A tier, and the engine that reaches it."""

    address: TierAddress
    engine: Engine

    @property
    def expires_by_itself(self) -> bool:
        """Whether it removes what nobody uses: a Redis does."""
        return self.address.scheme in ("redis", "rediss", "unix")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredObject:
    """One object, as its name tells it."""

    name: str
    kind: Purpose | None
    """None of a name that no daemon gives."""
    namespace: str = ""
    environment: Digest
    """Empty of such a one."""
    sha: str = ""
    """Of the key; empty for facts."""
    slot: int = 0
    size: int
    age_s: float
    """Since it was written or, where the tier notes that, last used."""

    @property
    def key_name(self) -> tuple[str, str, str]:
        """What all slots of one key have in common."""
        return self.namespace, self.environment, self.sha


@asynccontextmanager
async def opened(named: Sequence[str], environ: Mapping[str, str]) -> AsyncIterator[list[OpenTier]]:
    """Open the tiers that are named, or those of the environment; raise `UsageError` where there are none."""
    places = tier_places(named, environ)
    if not places:
        raise UsageError(f"say which tier: --tier file:///DIR (or s3://, redis://), or {TIER_VARIABLE}")
    async with AsyncExitStack() as scope:
        tiers = []
        for address in [tier_at(place, environ) for place in places]:
            engine = open_engine(address, environ)
            scope.push_async_callback(engine.close)
            tiers.append(OpenTier(address, engine))
        yield tiers


async def contents(engine: Engine) -> list[StoredObject]:
    """Return all artifacts and facts, in the order of their names; raise `TierError`."""
    found = []
    for prefix in (_ARTIFACTS, _FACTS):
        found += [_object(stored) async for stored in engine.names(prefix)]
    return sorted(found, key=lambda one: one.name)


def by_key(objects: Iterable[StoredObject]) -> dict[tuple[str, str, str], list[StoredObject]]:
    """Return the artifacts of each key, the highest slot first.

    A lookup ends at the first empty slot: what is removed in this order leaves nothing behind that cannot be found.
    """
    found: dict[tuple[str, str, str], list[StoredObject]] = {}
    for one in objects:
        if one.kind == "artifact":
            found.setdefault(one.key_name, []).append(one)
    return {name: sorted(slots, key=lambda one: -one.slot) for name, slots in found.items()}


def _object(stored: Stored) -> StoredObject:
    match stored.name.split("/"):
        case ["v1", namespace, environment, sha, slot] if (
            _is_digest(environment) and _is_digest(sha) and slot in _SLOT_NAMES
        ):
            return StoredObject(
                name=stored.name,
                kind="artifact",
                namespace=namespace,
                environment=Digest(environment),
                sha=sha,
                slot=int(slot),
                size=stored.size,
                age_s=stored.age_s,
            )
        case ["facts", environment] if _is_digest(environment):
            return StoredObject(
                name=stored.name,
                kind="facts",
                environment=Digest(environment),
                size=stored.size,
                age_s=stored.age_s,
            )
        case _:
            return StoredObject(
                name=stored.name, kind=None, environment=Digest(""), size=stored.size, age_s=stored.age_s
            )


def _is_digest(text: str) -> bool:
    try:
        parse_digest(text)
    except MalformedError:
        return False
    return True
