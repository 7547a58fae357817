"""RunService: what became of the graphs of a run, and why."""

# ruff: noqa: N802  # the protocol names the methods

from __future__ import annotations

from functools import partial

from compile_wire.errors import MalformedError
from compile_wire.v1 import runs_pb2 as pb
from compile_wire.v1 import runs_pb2_grpc as pb_grpc
from compiler_daemon.compiles.single_flight import SingleFlight
from compiler_daemon.insight.explanations import Explanations
from compiler_daemon.insight.run_intake import RunIntake
from compiler_daemon.insight.statistics import StatisticsCollector
from compiler_daemon.rpc import run_messages as messages
from compiler_daemon.rpc.around import Context
from compiler_daemon.rpc.service import Service
from compiler_daemon.rpc.unpack import unpack_program


class RunServicer(pb_grpc.RunServiceServicer):
    """Takes trainers' reports, and answers with explanations and figures."""

    def __init__(
        self,
        *,
        intake: RunIntake,
        explanations: Explanations,
        statistics: StatisticsCollector,
        single_flight: SingleFlight,
    ) -> None:
        self._intake = intake
        self._explanations = explanations
        self._statistics = statistics
        self._single_flight = single_flight

    def service(self) -> Service:
        """Return the service's name, and how it is added to a server."""
        return Service(
            name=pb.DESCRIPTOR.services_by_name["RunService"].full_name,
            add=partial(pb_grpc.add_RunServiceServicer_to_server, self),
        )

    async def ReportRun(self, request: pb.ReportRunRequest, context: Context) -> pb.ReportRunResponse:
        """See the protocol."""
        await self._intake.add(messages.unpack_report(request))
        return pb.ReportRunResponse()

    async def ExplainRun(self, request: pb.ExplainRunRequest, context: Context) -> pb.ExplainRunResponse:
        """See the protocol."""
        if sum(map(bool, (request.run, request.key, request.program))) > 1:
            raise MalformedError("name a run, or a key, or a program")
        if request.key:
            return messages.pack_explained(await self._explanations.of_key(messages.unpack_prefix(request.key)))
        run = messages.unpack_run(request.run) if request.run else ""
        return messages.pack_explained(await self._explanations.of_run(run, program=unpack_program(request.program)))

    async def GetStatistics(self, request: pb.GetStatisticsRequest, context: Context) -> pb.GetStatisticsResponse:
        """See the protocol."""
        return messages.pack_statistics(await self._statistics.collect())

    async def ListFlights(self, request: pb.ListFlightsRequest, context: Context) -> pb.ListFlightsResponse:
        """See the protocol."""
        return pb.ListFlightsResponse(flights=[messages.pack_flight(view) for view in self._single_flight.views()])
