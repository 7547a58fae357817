"""KernelService: unpack, one call into the domain, pack."""

# ruff: noqa: N802  # the protocol names the methods

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from compile_wire.digest import parse_digest
from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_KERNEL_BYTES
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import kernels_pb2 as kernels_pb
from compile_wire.v1 import kernels_pb2_grpc
from compiler_daemon.compiles.rights import Rights
from compiler_daemon.compiles.single_flight import SingleFlight
from compiler_daemon.compiles.transfers import Transfers
from compiler_daemon.errors import JobRefusedError
from compiler_daemon.jobs import Job, Refusal
from compiler_daemon.rpc import unpack
from compiler_daemon.rpc.around import Context
from compiler_daemon.rpc.auth import current_caller
from compiler_daemon.rpc.pack import pack_event
from compiler_daemon.rpc.service import Service


class KernelServicer(kernels_pb2_grpc.KernelServiceServicer):
    """Answers the calls of trainers about Triton kernels."""

    def __init__(self, *, transfers: Transfers, rights: Rights, single_flight: SingleFlight, interpreter: str) -> None:
        self._transfers = transfers
        self._rights = rights
        self._single_flight = single_flight
        self._interpreter = interpreter

    def service(self) -> Service:
        """Return the service's name, and how it is added to a server."""
        return Service(
            name=kernels_pb.DESCRIPTOR.services_by_name["KernelService"].full_name,
            add=partial(kernels_pb2_grpc.add_KernelServiceServicer_to_server, self),
        )

    async def CompileKernel(
        self, request: kernels_pb.CompileKernelRequest, context: Context
    ) -> AsyncIterator[pb.CompileGraphResponse]:
        """See the protocol."""
        environment = parse_digest(request.environment_id)
        self._rights.compile(current_caller(), "kernels", environment)
        kernel = await self._transfers.graph(unpack.unpack_graph(request.kernel))
        if len(kernel) > MAX_KERNEL_BYTES:
            raise MalformedError(f"a kernel has at most {MAX_KERNEL_BYTES} bytes, not {len(kernel)}")
        try:
            interpreter = unpack.unpack_interpreter(request.interpreter, peer=context.peer(), default=self._interpreter)
        except JobRefusedError as error:
            yield pack_event(Refusal(reason=error.reason, message=str(error), fields=error.fields))
            return
        job = Job(
            kind="kernels",
            environment=environment,
            key=unpack.unpack_key(request.key),
            graph=kernel,
            interpreter=interpreter,
            program=unpack.unpack_program(request.program),
        )
        async with aclosing(self._single_flight.compile(job, frozenset())) as events:
            async for event in events:
                yield pack_event(event)
