"""One log line for each call: what it was, how it ended, how long it took, which client. Never what was in it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from compiler_daemon.rpc.around import Context
from compiler_daemon.rpc.auth import caller_name

logger = logging.getLogger(__name__)

_OUR_FAULT = ("INTERNAL", "UNKNOWN", "DATA_LOSS")


@asynccontextmanager
async def log_access(method: str, context: Context) -> AsyncIterator[None]:
    """Log the call when it has ended. Misses and hits are everyday and go to debug."""
    started = time.monotonic()
    ended = "OK"
    try:
        yield
    except asyncio.CancelledError:
        ended = "CANCELLED"
        raise
    except GeneratorExit:
        ended = "CANCELLED"
        raise
    except BaseException:
        ended = _name(context.code())
        raise
    finally:
        level = logging.DEBUG if ended in ("OK", "CANCELLED") else logging.INFO
        logger.log(
            logging.WARNING if ended in _OUR_FAULT else level,
            "%s %s %.1f ms%s",
            method.rpartition("/")[2],
            ended,
            (time.monotonic() - started) * 1000,
            f" by {name}" if (name := caller_name()) else "",
        )


def _name(code: grpc.StatusCode | int | None) -> str:
    return code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"
