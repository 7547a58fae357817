"""When a daemon was last used, as far as calls say it; an operator who looks at a daemon does not use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from compiler_daemon.rpc.around import Context

_LOOKS = 20
_LOOKING = "/compiler_daemon.v1.AdminService/"


class Use:
    """Counts the calls under way, and knows when the last one ended."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._under_way = 0
        self._last = clock()

    @asynccontextmanager
    async def note(self, method: str, context: Context) -> AsyncIterator[None]:
        """Note a call from its beginning to its end."""
        if method.startswith(_LOOKING):
            yield
            return
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1
            self.renew()

    def renew(self) -> None:
        """Note that somebody uses the daemon now."""
        self._last = self._clock()

    def idle_s(self) -> float:
        """Return the seconds since the last call ended; 0 where one is under way."""
        return 0.0 if self._under_way else self._clock() - self._last


async def until_idle(limit_s: float, use: Use, is_busy: Callable[[], bool]) -> None:
    """Return when no call was under way, and nothing else was busy, for `limit_s` seconds."""
    while True:
        if is_busy():
            use.renew()
        elif use.idle_s() >= limit_s:
            return
        await asyncio.sleep(limit_s / _LOOKS)
