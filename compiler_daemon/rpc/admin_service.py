"""AdminService: what an operator asks."""

# ruff: noqa: N802  # the protocol names the methods

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc
from compiler_daemon.insight.status import DaemonStatus
from compiler_daemon.rpc.around import Context
from compiler_daemon.rpc.pack import pack_quarantined, pack_tier, pack_worker
from compiler_daemon.rpc.service import Service


class AdminServicer(pb_grpc.AdminServiceServicer):
    """Answers an operator's calls about the daemon's state, and stops it."""

    def __init__(self, *, status: DaemonStatus, shutdown: Callable[[], None], server_version: str) -> None:
        self._status = status
        self._shutdown = shutdown
        self._server_version = server_version

    def service(self) -> Service:
        """Return the service's name, and how it is added to a server."""
        return Service(
            name=pb.DESCRIPTOR.services_by_name["AdminService"].full_name,
            add=partial(pb_grpc.add_AdminServiceServicer_to_server, self),
        )

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        """See the protocol."""
        now = await self._status.snapshot()
        return pb.GetStatusResponse(
            server_version=self._server_version,
            pid=now.pid,
            uptime_s=now.uptime_s,
            address=now.address,
            directory=now.directory,
            draining=now.draining,
            workers=[pack_worker(view) for view in now.workers],
            queued=now.queued,
            artifacts=now.artifacts,
            blobs=now.blobs,
            store_bytes=now.store_bytes,
            store_max_bytes=now.store_max_bytes,
            rss_bytes=now.rss_bytes,
            counters=now.counters,
            quarantined=[pack_quarantined(view) for view in now.quarantined],
            sandbox=now.sandbox,
            tiers=[pack_tier(view) for view in now.tiers],
        )

    async def Shutdown(self, request: pb.ShutdownRequest, context: Context) -> pb.ShutdownResponse:
        """See the protocol."""
        self._shutdown()
        return pb.ShutdownResponse()
