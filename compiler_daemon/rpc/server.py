"""The gRPC server: every call through the same interceptors, health per service and overall, reflection on demand."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # its stubs are a package apart

from compile_wire import tracing
from compile_wire.endpoint.address import Address, TcpAddress
from compile_wire.limits import MAX_MESSAGE_BYTES
from compiler_daemon import metrics
from compiler_daemon.access.register import Keyring
from compiler_daemon.errors import AddressError
from compiler_daemon.insight.status import DaemonStatus
from compiler_daemon.rpc.access_log import log_access, trace_calls
from compiler_daemon.rpc.around import AroundInterceptor
from compiler_daemon.rpc.auth import require_caller
from compiler_daemon.rpc.drain import refuse_while
from compiler_daemon.rpc.health import HealthServicer
from compiler_daemon.rpc.parse import ParseInterceptor
from compiler_daemon.rpc.service import Service
from compiler_daemon.rpc.status import to_status
from compiler_daemon.rpc.use import Use

_MAX_CONCURRENT_CALLS = 1024
"""Calls beyond are refused with RESOURCE_EXHAUSTED; each waiter of a compile is one."""

_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Without it a second daemon could bind the same port, and the kernel would deal out calls between the two.
    ("grpc.so_reuseport", 0),
    # Whoever connects and says nothing is let go; two minutes are the default.
    ("grpc.server_handshake_timeout_ms", 10_000),
]


class RpcServer:
    """Serves gRPC: the daemon's services on its addresses."""

    def __init__(
        self,
        services: Sequence[Service],
        *,
        keyring: Keyring,
        status: DaemonStatus,
        counters: metrics.Counters,
        with_reflection: bool,
        max_connections: int,
    ) -> None:
        """`max_connections` are those of one address."""
        self.max_connections = max_connections
        self.use = Use()
        self._services = [service.name for service in services]
        self._health = HealthServicer(self._services)

        def make() -> grpc.aio.Server:
            server = grpc.aio.server(
                # The first is the outermost: the log sees the final status; nothing is done before the caller is known.
                interceptors=[
                    AroundInterceptor(log_access),
                    AroundInterceptor(to_status),
                    AroundInterceptor(require_caller(keyring, counters)),
                    AroundInterceptor(refuse_while(lambda: status.draining)),
                    AroundInterceptor(self.use.note),
                    *([AroundInterceptor(trace_calls)] if tracing.is_on() else []),
                    ParseInterceptor(),
                ],
                options=[*_OPTIONS, ("grpc.max_allowed_incoming_connections", max_connections)],
                maximum_concurrent_rpcs=_MAX_CONCURRENT_CALLS,
            )
            for service in services:
                service.add(server)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            if with_reflection:
                # Imported for those who ask for it only.
                from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # as above

                reflection.enable_server_reflection((*self._services, reflection.SERVICE_NAME), server)
            return server

        self._make = make
        self._servers = [make()]

    def bind(self, address: Address, credentials: grpc.ServerCredentials | None = None) -> Address:
        """Take an address, with TLS where there are credentials; return it with the port that the system chose.

        Raises `AddressError`.
        """
        server = self._servers[-1]
        if isinstance(address, TcpAddress):
            _check_free(address)
        try:
            if credentials is None:
                port = server.add_insecure_port(str(address))
            else:
                port = server.add_secure_port(str(address), credentials)
        except RuntimeError as error:
            raise AddressError(f"{address} cannot be bound: choose another --address") from error
        return TcpAddress(address.host, port) if isinstance(address, TcpAddress) else address

    async def start(self) -> None:
        """Begin to answer at all addresses that were taken."""
        await self._servers[-1].start()
        for service in self._services:
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def open_again(self, address: Address) -> None:
        """Begin to answer at a Unix socket whose file somebody has removed; who is connected stays connected.

        Raises `AddressError`.
        """
        # gRPC adds no address to a server that has begun: another one of the same services takes it.
        self._servers.append(self._make())
        try:
            self.bind(address)
        except AddressError:
            self._servers.pop()
            raise
        await self._servers[-1].start()

    async def say_not_serving(self) -> None:
        """Tell probers and balancers to go elsewhere; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; cut those off that take longer than `grace_s`. Stopping twice is fine."""
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))


def _check_free(address: TcpAddress) -> None:
    """Raise `AddressError` where the address cannot be bound: gRPC would say so too, in lines of its own on stderr."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            raise AddressError(f"{address} cannot be bound ({error.strerror}): choose another --address") from error
