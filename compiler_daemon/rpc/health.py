"""The standard health service, whole: the library's own leaves out `List`, and says so with a traceback in our log."""

# ruff: noqa: N802  # the protocol names the methods

from __future__ import annotations

from collections.abc import Sequence

from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]  # its stubs are a package apart
from grpc_health.v1.health import aio as health_aio  # type: ignore[import-untyped]  # as above

from compiler_daemon.rpc.around import Context


class HealthServicer(health_aio.HealthServicer):  # type: ignore[misc]  # as above
    """The health of the daemon as a whole, named by the empty name, and of its services."""

    def __init__(self, services: Sequence[str]) -> None:
        super().__init__()
        self._names = ("", *services)

    async def List(self, request: health_pb2.HealthListRequest, context: Context) -> health_pb2.HealthListResponse:
        """Return what `Check` says of each service."""
        checks = {name: await self.Check(health_pb2.HealthCheckRequest(service=name), context) for name in self._names}
        return health_pb2.HealthListResponse(statuses=checks)
