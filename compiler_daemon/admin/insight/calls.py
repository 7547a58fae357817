"""The operator's calls about runs: explanations, figures, compiles under way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from compile_wire.v1 import runs_pb2 as pb
from compile_wire.v1 import runs_pb2_grpc as pb_grpc
from compiler_daemon.admin.answers import CompileState, Explanation, Figures
from compiler_daemon.admin.connection import OperatorClient

_CALL_S = 20.0
"""An explanation reads many graphs."""

_COUNTS = frozenset(
    "hits misses merged compiled published runs artifacts store_bytes store_max_bytes bytes hits_local "
    "compiled_by_daemon compiled_here misses_by_reason here_by_reason fallbacks_by_reason refused_by_reason here "
    "fallbacks bytes_read written bytes_written adopted duplicates".split()
)
"""Fields that are numbers, or maps to numbers: protobuf's JSON writes those of 64 bits as text."""


class RunClient:
    """Asks a daemon about runs."""

    def __init__(self, operator: OperatorClient) -> None:
        self._operator = operator

    def explain(self, *, key: str = "", program: str = "") -> Explanation:
        """Return why the graphs of the last run (or of the program's last run, or a key) missed.

        Raises `DaemonError` with a sentence where there is no such thing.
        """
        found = self._call("ExplainRun", pb.ExplainRunRequest(key=key, program=program))
        for graph in found["graphs"]:
            graph["outcome"] = graph["outcome"].removeprefix("GRAPH_OUTCOME_").lower()
        return Explanation.of(found)

    def statistics(self) -> Figures:
        """Return the figures since the store was made."""
        return Figures.of(self._call("GetStatistics", pb.GetStatisticsRequest()))

    def flights(self) -> list[CompileState]:
        """Return the compiles under way and those that wait; none where the daemon is too old to say."""
        with self._operator.calls() as (channel, metadata):
            stub = pb_grpc.RunServiceStub(channel)
            try:
                answer = stub.ListFlights(pb.ListFlightsRequest(), timeout=self._operator.call_s, metadata=metadata)
            except grpc.RpcError as error:
                if getattr(error, "code", lambda: None)() is grpc.StatusCode.UNIMPLEMENTED:
                    return []
                raise
        return [CompileState.of(flight) for flight in _plain(answer)["flights"]]

    def _call(self, method: str, request: Message) -> dict[str, Any]:
        with self._operator.calls() as (channel, metadata):
            call: Callable[..., Message] = getattr(pb_grpc.RunServiceStub(channel), method)
            return _plain(call(request, timeout=_CALL_S, metadata=metadata))


def as_figures(message: pb.GetStatisticsResponse) -> Figures:
    """Return figures as values."""
    return Figures.of(_plain(message))


def _plain(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return {name: _numbers(name, value) for name, value in fields.items()}


def _numbers(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(name, part) for part in value]
    if isinstance(value, dict):
        if name in _COUNTS:
            return {reason: int(count) for reason, count in value.items()}
        return {part: _numbers(part, inner) for part, inner in value.items()}
    if name in _COUNTS and isinstance(value, str):
        return int(value)
    return value
