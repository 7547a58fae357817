"""Every call shows the token; otherwise UNAUTHENTICATED, before a byte of the request is looked at."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from compiler_daemon import metrics
from compiler_daemon.errors import UnauthenticatedError
from compiler_daemon.rpc.around import Around, Context

_SCHEME = b"Bearer "


def require_token(token: str, counters: metrics.Counters) -> Around:
    """Return what refuses calls without `authorization: Bearer TOKEN`."""
    expected = _SCHEME + token.encode()

    @asynccontextmanager
    async def around(_method: str, context: Context) -> AsyncIterator[None]:
        given = b""
        for name, value in context.invocation_metadata() or ():
            if name == "authorization":
                given = value if isinstance(value, bytes) else value.encode()
        if not hmac.compare_digest(given, expected):
            counters.add(metrics.UNAUTHENTICATED)
            raise UnauthenticatedError(
                "this call needs the metadata `authorization: Bearer TOKEN`, with the token of the daemon's directory"
            )
        yield

    return around
