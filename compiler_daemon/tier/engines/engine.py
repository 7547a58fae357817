"""What every engine of a tier does: bytes under names, of which one can be created only once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from compiler_daemon.errors import (
    TierDeniedError,
    TierError,
    TierFullError,
    TierMissingError,
    TierTimeoutError,
    TooLargeError,
)
from compiler_daemon.text.findings import Finding, note, ok, problem

LONGEST_NAME = 512
"""Of our own names the longest has about 280 characters; file systems and S3 end at 1024."""

_RACERS = 8
_RACE_PREFIX = "doctor"


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineTimeouts:
    """How long an engine waits. A trainer's patience is shorter: it is kept by the budget of a read, not here."""

    connect_s: float = 1.0
    call_s: float = 5.0
    """For an answer to begin, or to stall."""
    bytes_per_s: float = 4 * 2**20
    """A transfer that is slower than this has failed: what it brings could be compiled meanwhile."""

    def of(self, size: int) -> float:
        """Return how long a call that carries `size` bytes may take."""
        return self.call_s + size / self.bytes_per_s


class Stored(NamedTuple):
    """One object as a listing tells it."""

    name: str
    size: int
    age_s: float
    """Since it was written or touched, by the clock of whoever keeps it."""


class Engine(Protocol):
    """Keeps bytes under names. Every call raises a `TierError` where it could not be done, and none tries twice.

    A call that is cancelled or runs out of time may have been carried out.
    """

    @property
    def largest(self) -> int:
        """The largest object that should be put here."""
        ...

    async def get(self, name: str, limit: int) -> bytes | None:
        """Return an object, None where there is none. Raises `TooLargeError`, unread, where it exceeds `limit`."""
        ...

    async def begin(self, name: str, most: int) -> bytes | None:
        """Return the beginning of an object, at most so many bytes; None where there is none. It must not be empty."""
        ...

    async def create(self, name: str, data: bytes) -> bool:
        """Store an object whole; return False, changing nothing, where the name is taken."""
        ...

    async def replace(self, name: str, data: bytes, *, lives_s: float | None = None) -> None:
        """Store an object whole, in place of another's. An engine that can, removes it after `lives_s`."""
        ...

    async def delete(self, name: str) -> None:
        """Remove an object where it is there."""
        ...

    async def touch(self, name: str) -> bool:
        """Let an object count as new for who cleans by age; return False where the engine cannot."""
        ...

    def names(self, prefix: str) -> AsyncIterator[Stored]:
        """Yield the objects below a prefix, which ends with `/`, in any order."""
        ...

    async def check(self) -> list[Finding]:
        """Return what is right and wrong with the tier, in words, for `doctor`."""
        ...

    async def close(self) -> None:
        """Leave the engine."""
        ...


def check_name(name: str) -> str:
    """Return a name that no engine reads as a path out of the tier; raise `ValueError` for another."""
    parts = name.split("/")
    plain = name.isascii() and name.isprintable() and not set(name) & set("\\*?[]# %")
    if not plain or len(name) > LONGEST_NAME or any(part.startswith(".") or not part for part in parts):
        raise ValueError(f"{name!r} cannot be a name in a tier")
    return name


async def check_rights(engine: Engine) -> list[Finding]:
    """Read, race creations of one new name, and clean up; return what was found.

    A store that lets two of them win would still hold valid artifacts, but leases and agreement would be lost.
    """
    name = f"{_RACE_PREFIX}/{secrets.token_hex(16)}"
    try:
        await engine.get(name, 1)
    except TierMissingError as error:
        return [problem("tier", str(error))]
    except TierDeniedError as error:
        return [problem("tier reads", f"{error}: allow reading, or artifacts of others stay out of reach")]
    except TierError as error:
        return [problem("tier", f"{error}: nothing is shared until it answers")]
    found = [ok("tier reads", "allowed")]
    try:
        found += await _race(engine, name)
    finally:
        await _clean_up(engine, name)
    return found


async def _race(engine: Engine, name: str) -> list[Finding]:
    racers = (engine.create(name, f"{number}".encode()) for number in range(_RACERS))
    results = await asyncio.gather(*racers, return_exceptions=True)
    for result in results:
        if isinstance(result, TierDeniedError):
            return [note("tier writes", f"{result}: artifacts of others are read, those of here are not shared")]
        if isinstance(result, TierFullError):
            return [problem("tier writes", f"{result}: make room, or let something clean it")]
        if isinstance(result, TierTimeoutError):
            return [problem("tier writes", f"{result}: it could not be seen whether creating a name is exclusive")]
        if isinstance(result, TierError):
            return [problem("tier writes", f"{result}")]
        if isinstance(result, BaseException):
            raise result
    if (winners := sum(result is True for result in results)) != 1:
        text = f"{winners} of {_RACERS} that created one name at once were told that they had: "
        return [
            problem("tier creates", f"{text}nodes will compile the same graphs; update this server, or use another")
        ]
    return [ok("tier writes", "allowed"), ok("tier creates", f"exclusive: 1 of {_RACERS} at once won")]


async def _clean_up(engine: Engine, name: str) -> None:
    try:
        await engine.delete(name)
    except TierError:
        return  # it is a name that nobody looks for, and of a few bytes


def check_size(size: int, largest: int) -> None:
    """Raise `TooLargeError` for an object that an engine should not hold."""
    if size > largest:
        raise TooLargeError(f"an object of {size} bytes is not put into this tier, which takes {largest}")
