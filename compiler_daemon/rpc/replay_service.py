"""ReplayService: kept graphs compiled again."""

# ruff: noqa: N802  # the protocol names the methods

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial

from compile_wire.digest import parse_digest
from compile_wire.v1 import replay_pb2 as pb
from compile_wire.v1 import replay_pb2_grpc as pb_grpc
from compiler_daemon.compiles.recompile import Recompiler, Replayed, ReplayEvent
from compiler_daemon.compiles.rights import Rights
from compiler_daemon.compiles.transfers import Transfers
from compiler_daemon.errors import JobRefusedError
from compiler_daemon.jobs import Job, Refusal
from compiler_daemon.rpc import unpack
from compiler_daemon.rpc.around import Context
from compiler_daemon.rpc.auth import current_caller
from compiler_daemon.rpc.pack import pack_event
from compiler_daemon.rpc.service import Service


class ReplayServicer(pb_grpc.ReplayServiceServicer):
    """Answers an operator's calls that have kept graphs compiled again."""

    def __init__(self, *, transfers: Transfers, recompiler: Recompiler, rights: Rights, interpreter: str) -> None:
        self._rights = rights
        self._transfers = transfers
        self._recompiler = recompiler
        self._interpreter = interpreter

    def service(self) -> Service:
        """Return the service's name, and how it is added to a server."""
        return Service(
            name=pb.DESCRIPTOR.services_by_name["ReplayService"].full_name,
            add=partial(pb_grpc.add_ReplayServiceServicer_to_server, self),
        )

    async def ReplayGraph(
        self, request: pb.ReplayGraphRequest, context: Context
    ) -> AsyncIterator[pb.ReplayGraphResponse]:
        """See the protocol."""
        try:
            interpreter = unpack.unpack_interpreter(request.interpreter, peer=context.peer(), default=self._interpreter)
        except JobRefusedError as error:
            yield _packed(Refusal(reason=error.reason, message=str(error), fields=error.fields))
            return
        environment = parse_digest(request.environment_id)
        asked = Job(
            kind=self._rights.replay(current_caller(), environment),
            environment=environment,
            key=unpack.unpack_key(request.key) if request.key else "",
            graph=await self._transfers.graph(unpack.unpack_graph(request.graph)),
            interpreter=interpreter,
            program=unpack.unpack_program(request.program),
        )
        async with aclosing(self._recompiler.replay(asked)) as events:
            async for event in events:
                yield _packed(event)


def _packed(event: ReplayEvent) -> pb.ReplayGraphResponse:
    if isinstance(event, Replayed):
        return pb.ReplayGraphResponse(
            replayed=pb.Replayed(
                environment_id=event.environment,
                key=event.key,
                compiled=event.compiled,
                compile_s=event.compile_s,
            )
        )
    packed = pack_event(event)  # the same messages as a trainer's compile has
    match packed.WhichOneof("event"):
        case "queued":
            return pb.ReplayGraphResponse(queued=packed.queued)
        case "running":
            return pb.ReplayGraphResponse(running=packed.running)
        case _:
            return pb.ReplayGraphResponse(refused=packed.refused)
