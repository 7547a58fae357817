"""Calls continue the trace of the trainer that makes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from compile_wire import tracing
from compiler_daemon.rpc.around import Context

_SERVICES = ("CompileService", "KernelService")
"""An operator's questions are not part of any graph's way."""


@asynccontextmanager
async def trace_calls(method: str, context: Context) -> AsyncIterator[None]:
    """A span around the call, inside the trainer's."""
    service, _, name = method.rpartition("/")
    parent = ""
    for key, value in context.invocation_metadata() or ():
        if key == tracing.TRACEPARENT:
            parent = value if isinstance(value, str) else value.decode("ascii", "replace")
    if not parent or not service.endswith(_SERVICES):
        yield
        return
    with tracing.span(name, parent=parent):
        yield
