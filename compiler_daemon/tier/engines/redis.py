"""A Redis, or what speaks like one, as a tier: `redis://`, `rediss://` (TLS) and `unix://`.

The library's ten retries are off, and its timeouts are said. Every object has an end, so that `volatile-lru` may evict
it; a hit that is touched puts the end off. Leases are locks here: see `take`, `extend` and `drop`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar, cast

from redis import exceptions
from redis.asyncio import Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from compiler_daemon.errors import (
    TierDeniedError,
    TierError,
    TierFullError,
    TierTimeoutError,
    TierUnreachableError,
    TooLargeError,
)
from compiler_daemon.text.findings import Finding, note, ok, problem
from compiler_daemon.tier.address import TierAddress
from compiler_daemon.tier.engines.engine import EngineTimeouts, Stored, check_name, check_rights, check_size

T = TypeVar("T")

LARGEST = 8 * 2**20
"""A Redis answers one caller at a time: a larger object holds up everybody's leases and lookups."""

OBJECT_LIVES_S = 30 * 86400.0
"""Of objects that nobody touches any more."""

_MOST_CONNECTIONS = 16
_PAGE = 500
_PREFIX = "compiler-daemon:"
"""Before every name: a lab's Redis has other users."""

_EXTEND = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
_DROP = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisEngine:
    """A tier in a Redis."""

    largest = LARGEST

    def __init__(
        self, address: TierAddress, timeouts: EngineTimeouts | None = None, object_lives_s: float = OBJECT_LIVES_S
    ) -> None:
        self._address = address
        self._timeouts = timeouts or EngineTimeouts()
        self._object_ms = int(object_lives_s * 1000)
        self._redis = self._opened()

    async def get(self, name: str, limit: int) -> bytes | None:
        key = _key(name)
        # In one round trip: how large it is, no more of it than is wanted, and whether an empty answer is an object.
        pipe = self._redis.pipeline(transaction=False)
        pipe.strlen(key)
        pipe.exists(key)
        pipe.getrange(key, 0, max(limit - 1, 0))
        size, there, data = await self._answer(pipe.execute(), limit)
        if size > limit:
            raise TooLargeError(f"{name} in {self._address} has {size} bytes, and at most {limit} are read")
        return bytes(data) if there else None

    async def begin(self, name: str, most: int) -> bytes | None:
        data: Any = await self._answer(self._redis.getrange(_key(name), 0, most - 1), most)
        return bytes(data) or None

    async def create(self, name: str, data: bytes) -> bool:
        check_size(len(data), self.largest)
        call = self._redis.set(_key(name), data, nx=True, px=self._object_ms)
        return bool(await self._answer(call, len(data)))

    async def replace(self, name: str, data: bytes, *, lives_s: float | None = None) -> None:
        check_size(len(data), self.largest)
        lives_ms = self._object_ms if lives_s is None else int(lives_s * 1000)
        await self._answer(self._redis.set(_key(name), data, px=lives_ms), len(data))

    async def delete(self, name: str) -> None:
        await self._answer(self._redis.delete(_key(name)))

    async def touch(self, name: str) -> bool:
        await self._answer(self._redis.pexpire(_key(name), self._object_ms))
        return True

    async def names(self, prefix: str) -> AsyncIterator[Stored]:
        check_name(prefix.rstrip("/"))
        cursor, seen = 0, set[str | bytes]()
        while True:
            cursor, keys = await self._answer(self._redis.scan(cursor, match=f"{_PREFIX}{prefix}*", count=_PAGE))
            new = [key for key in keys if key not in seen]  # a scan may tell a key twice
            seen.update(new)
            pipe = self._redis.pipeline(transaction=False)
            for key in new:
                pipe.strlen(key)
                pipe.pttl(key)
            answers = await self._answer(pipe.execute()) if new else []
            for key, size, left_ms in zip(new, answers[::2], answers[1::2], strict=True):
                if left_ms != _GONE:
                    age_ms = self._object_ms - left_ms if left_ms >= 0 else 0
                    yield Stored(_text(key).removeprefix(_PREFIX), size, max(0.0, age_ms / 1000))
            if cursor == 0:
                return

    async def check(self) -> list[Finding]:
        try:
            await self._answer(self._redis.ping())
        except TierError as error:
            return [problem("tier", f"{error}: nothing is shared until it answers")]
        return [ok("tier", f"{self._address}"), *await self._check_room(), *await check_rights(self)]

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def take(self, name: str, value: bytes, lives_s: float) -> tuple[bytes, float]:
        """Put a value under a free name for a while; return what is there now, ours or not, and how long it stays."""
        key = _key(name)
        pipe = self._redis.pipeline(transaction=True)
        pipe.set(key, value, nx=True, px=int(lives_s * 1000))
        pipe.get(key)
        pipe.pttl(key)
        _, there, left_ms = await self._answer(pipe.execute())
        return bytes(there or b""), max(0.0, left_ms / 1000)

    async def extend(self, name: str, value: bytes, lives_s: float) -> bool:
        """Put the end of a value off; return False where it is not there any more."""
        answer = self._redis.eval(_EXTEND, 1, _key(name), cast(str, value), str(int(lives_s * 1000)))
        return bool(await self._answer(answer))

    async def drop(self, name: str, value: bytes) -> bool:
        """Remove a value; return False where it is not there any more."""
        answer = self._redis.eval(_DROP, 1, _key(name), cast(str, value))
        return bool(await self._answer(answer))

    async def _check_room(self) -> list[Finding]:
        try:
            memory = await self._answer(self._redis.info("memory"))
        except TierError:
            return []  # an account of few rights need not be one that may ask
        policy, limit = str(memory.get("maxmemory_policy", "")), int(memory.get("maxmemory", 0))
        if limit == 0:
            return [note("tier room", "this Redis has no `maxmemory`: set one, with `maxmemory-policy volatile-lru`")]
        if policy.startswith("allkeys"):
            text = "it may evict leases while they are held, and graphs are then compiled twice: use `volatile-lru`"
            return [note("tier room", f"`maxmemory-policy {policy}`: {text}")]
        if policy == "noeviction":
            return [
                note(
                    "tier room", "`maxmemory-policy noeviction`: once it is full nothing is shared; use `volatile-lru`"
                )
            ]
        return [ok("tier room", f"{limit} bytes, {policy}")]

    async def _answer(self, call: Awaitable[T], size: int = 0) -> T:
        try:
            async with asyncio.timeout(self._timeouts.of(size)):
                return await call
        except (TimeoutError, exceptions.TimeoutError):
            raise TierTimeoutError(f"{self._address} does not answer") from None
        except exceptions.RedisError as error:
            raise self._translated(error) from error
        except OSError as error:
            raise TierUnreachableError(f"nobody answers at {self._address} ({error.strerror or error})") from error

    def _translated(self, error: exceptions.RedisError) -> TierError:
        text = str(error)
        denied = exceptions.AuthenticationError | exceptions.AuthorizationError | exceptions.NoPermissionError
        # A password that is refused while the library connects comes as a connection that failed.
        causes = (error, error.__cause__, error.__context__)
        if any(isinstance(cause, denied) for cause in causes) or text.startswith(
            ("NOPERM", "NOAUTH", "WRONGPASS", "READONLY")
        ):
            return TierDeniedError(f"{self._address} does not allow it ({text})")
        if isinstance(error, exceptions.OutOfMemoryError) or text.startswith(("OOM", "MISCONF")):
            return TierFullError(f"{self._address} has no room ({text})")
        if isinstance(error, exceptions.ConnectionError):
            return TierUnreachableError(f"nobody answers at {self._address} ({text})")
        return TierError(f"{self._address}: {text}")

    def _opened(self) -> Redis:
        address = self._address
        settings: dict[str, Any] = {
            "db": address.database,
            "username": address.user or None,
            "password": address.password or None,
            "socket_connect_timeout": self._timeouts.connect_s,
            "socket_timeout": self._timeouts.call_s,
            "retry": Retry(NoBackoff(), 0),
            "max_connections": _MOST_CONNECTIONS,
            "protocol": 2,  # with the newer one a missing password is told as a connection that failed
        }
        match address.scheme:
            case "unix":
                settings |= {"connection_class": UnixDomainSocketConnection, "path": address.place}
            case _:
                host, _, port = address.place.rpartition(":")
                settings |= {"host": host.strip("[]"), "port": int(port), "connection_class": Connection}
        if address.scheme == "rediss":
            settings |= {"connection_class": SSLConnection, "ssl_min_version": ssl.TLSVersion.TLSv1_2}
        return Redis(connection_pool=ConnectionPool(**settings))


_GONE = -2


def _key(name: str) -> str:
    return _PREFIX + check_name(name)


def _text(key: bytes | str) -> str:
    return key.decode() if isinstance(key, bytes) else key
