"""The standard health service, whole: the library's own leaves out `List`, and says so with a traceback in our log."""

# ruff: noqa: N802  # the protocol names the methods

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # its stubs are a package apart
from grpc_health.v1.health import aio as health_aio  # type: ignore[import-untyped]  # as above

from compiler_daemon.rpc.around import Context

_messages: Any = health_pb2  # made at import: what is in it is unknown to type checkers


class HealthServicer(health_aio.HealthServicer):  # type: ignore[misc]  # as above
    """The health of the daemon as a whole, named by the empty name, and of its services."""

    def __init__(self, services: Sequence[str]) -> None:
        super().__init__()
        self._names = ("", *services)

    async def List(self, request: Any, context: Context) -> Any:
        """Return what `Check` says of each service."""
        checks = {name: await self.Check(_messages.HealthCheckRequest(service=name), context) for name in self._names}
        return _messages.HealthListResponse(statuses=checks)
