"""A program's artifacts are fetched from a far tier when it says hello: it waits once, and not once for each graph.

The tier holds, for each program and environment, the keys that it asked for last. The list is not signed and decides
nothing: at worst it has a node read a bounded number of objects that nobody asks for, each verified like any other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from compile_wire.digest import Digest
from compile_wire.limits import MAX_KEY_TEXT
from compile_wire.plain import is_plain
from compiler_daemon.tier.tiers import Tiers

logger = logging.getLogger(__name__)

MAX_KEYS = 64
"""Of one program: a sweep's cell has a dozen graphs."""

_AT_ONCE = 8
_AGAIN_S = 60.0
"""A program that says hello again within that time, as the ranks of a job do, fetches nothing anew."""

_MAX_PROGRAMS = 1024


class Prefetch:
    """Fetches what programs asked for last, and notes what they ask for."""

    def __init__(
        self,
        tiers: Tiers,
        *,
        has: Callable[[Digest, str], Awaitable[bool]],
        fetch: Callable[[Digest, str], Awaitable[Any]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`has` says whether an artifact is stored here, and `fetch` stores one that a tier has."""
        self._tiers = tiers
        self._has = has
        self._fetch_one = fetch
        self._clock = clock
        self._begun: OrderedDict[tuple[Digest, str], float] = OrderedDict()
        self._noted: OrderedDict[tuple[Digest, str], tuple[str, tuple[str, ...]]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, environment: Digest, program: str) -> None:
        """Begin to fetch what the program asked for last, in the background, where a tier is far away."""
        name = (environment, program)
        now = self._clock()
        if not program or not self._tiers.are_far or now - self._begun.get(name, -_AGAIN_S) < _AGAIN_S:
            return
        _remember(self._begun, name, now)
        task = asyncio.create_task(self._fetch(environment, program))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def note(self, environment: Digest, program: str, run: str, keys: Sequence[str]) -> None:
        """Note what a run of a program has asked for since the last time; the list is written where it is new."""
        name = (environment, program)
        if not program or not keys or not self._tiers.are_far:
            return
        last_run, known = self._noted.get(name, ("", ()))
        wanted = tuple(dict.fromkeys((*(known if run == last_run else ()), *keys)))[:MAX_KEYS]
        _remember(self._noted, name, (run, wanted))
        if wanted == known:
            return
        self._tiers.offer_list(environment, program, json.dumps(wanted, separators=(",", ":")).encode())

    async def close(self) -> None:
        """Stop fetching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _fetch(self, environment: Digest, program: str) -> None:
        keys = read_list(await self._tiers.list_of(environment, program))
        places = asyncio.Semaphore(_AT_ONCE)

        async def fetch(key: str) -> None:
            async with places:
                if not await self._has(environment, key):
                    await self._fetch_one(environment, key)

        results = await asyncio.gather(*(fetch(key) for key in keys), return_exceptions=True)
        for error in results:
            if isinstance(error, Exception):
                logger.warning("an artifact of %s was not fetched ahead: %s", program, error)


def read_list(data: bytes) -> tuple[str, ...]:
    """Return the keys in a list; none where it is no list of ours."""
    try:
        keys = json.loads(data) if data else []
    except (ValueError, RecursionError):
        return ()
    good = isinstance(keys, list) and all(
        isinstance(key, str) and 0 < len(key) <= MAX_KEY_TEXT and is_plain(key) for key in keys
    )
    return tuple(keys[:MAX_KEYS]) if good else ()


def _remember(known: OrderedDict[Any, Any], name: Any, value: Any) -> None:
    known[name] = value
    known.move_to_end(name)
    if len(known) > _MAX_PROGRAMS:
        known.popitem(last=False)
