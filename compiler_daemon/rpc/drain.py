"""While the daemon drains, new work is refused with UNAVAILABLE; what has been promised is still handed over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from compiler_daemon.errors import DrainingError
from compiler_daemon.rpc.around import Around, Context

_REFUSED = ("Handshake", "LookupArtifact", "PublishArtifact", "WriteBlob", "ImportBlob", "ImportArtifact")
"""Not CompileGraph, which says so in its own words; not ReadBlob, which a client needs for what it was just given."""


def refuse_while(is_draining: Callable[[], bool]) -> Around:
    """Return what refuses new work while `is_draining()`."""

    @asynccontextmanager
    async def around(method: str, _context: Context) -> AsyncIterator[None]:
        if is_draining() and method.rpartition("/")[2] in _REFUSED:
            raise DrainingError
        yield

    return around
