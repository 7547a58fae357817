"""One log line for each call: what it was, how it ended, how long it took, which client. Never what was in it.

And none of gRPC's own for a client that leaves while it is answered. Where tracing is on, the calls that are part of a
graph's way also have a span, which continues the trace of the trainer that makes them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from compile_wire import tracing
from compiler_daemon.rpc.around import Context
from compiler_daemon.rpc.auth import caller_name

logger = logging.getLogger(__name__)

GRPC_LOGGER = "grpc._cython.cygrpc"

_OUR_FAULT = ("INTERNAL", "UNKNOWN", "DATA_LOSS")
_BATCH_ENDED_BADLY = 'Failed "execute_batch"'
"""As against one that could not be begun, which would be our fault."""

_TRACED_SERVICES = ("CompileService", "KernelService")
"""An operator's questions are not part of any graph's way."""


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


@asynccontextmanager
async def trace_calls(method: str, context: Context) -> AsyncIterator[None]:
    """Put a span around the call, inside the span of the trainer that makes it."""
    service, _, name = method.rpartition("/")
    parent = ""
    for key, value in context.invocation_metadata() or ():
        if key == tracing.TRACEPARENT:
            parent = value if isinstance(value, str) else value.decode("ascii", "replace")
    if not parent or not service.endswith(_TRACED_SERVICES):
        yield
        return
    with tracing.span(name, parent=parent):
        yield


def _name(code: grpc.StatusCode | int | None) -> str:
    return code.name if isinstance(code, grpc.StatusCode) else "UNKNOWN"


def is_no_left_client(record: logging.LogRecord) -> bool:
    """Return whether gRPC logs anything but that a client left: a filter for its logger, `GRPC_LOGGER`.

    Where sending fails because the call is over, and it has not heard of that yet, gRPC 1.85 logs an error and a
    traceback (run: once in 18,000 calls that their client cancelled with the last message). Clients leave every day.
    """
    error = record.exc_info[1] if record.exc_info else None
    if type(error).__name__ != "ExecuteBatchError" or not str(error).startswith(_BATCH_ENDED_BADLY):
        return True
    logger.debug("a client left while it was answered: %s", record.getMessage())
    return False
