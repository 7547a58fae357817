"""The client reads a daemon's answers into values and prints them as JSON in the form in which they came."""

from __future__ import annotations

import json

from google.protobuf import json_format

from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc
from compiler_daemon.admin.answers import CompileState, DaemonState, Explanation, Figures, RefusedGraph, WorkerState
from compiler_daemon.admin.connection import OperatorClient
from compiler_daemon.config import DaemonLocation
from tests.daemon.daemon_process import DaemonProcess
from tests.daemon.inventory_samples import done


def test_a_state_is_read_with_its_workers_and_refused_graphs() -> None:
    document = {
        "pid": 7,
        "draining": True,
        "workers": [{"pid": 8, "state": "busy", "of_a_newer_daemon": 1}],
        "quarantined": [{"key": "k", "reason": "crash", "left_s": 2.5}],
        "counters": {"hits": 3},
        "of_a_newer_daemon": "yes",
    }

    state = DaemonState.of(document)

    assert (state.pid, state.draining, state.counters) == (7, True, {"hits": 3})
    assert state.workers == (WorkerState(pid=8, state="busy"),)
    assert state.quarantined == (RefusedGraph(key="k", reason="crash", left_s=2.5),)
    assert state.document is document


def test_what_an_older_daemon_does_not_say_is_nothing() -> None:
    assert DaemonState.of({}) == DaemonState()
    assert CompileState.of({"key": "k"}).eta_s is None
    assert Figures.of({}).programs == ()
    assert (Explanation.of({"graphs": []}).run, Explanation.of({"kernels": {"run": "1"}}).run) == (None, None)


def test_differences_are_their_sentences_and_the_nearest_request_may_be_missing() -> None:
    graphs = [
        {
            "key": "a",
            "differences": [{"kind": "shape", "text": "x is larger"}],
            "nearest": {"key": "b", "program": "p"},
        },
        {"key": "c"},
    ]

    first, second = Explanation.of({"graphs": graphs}).graphs

    assert first.differences == ("x is larger",)
    assert first.nearest is not None
    assert (first.nearest.key, second.nearest) == ("b", None)


def test_status_as_json_has_the_keys_of_the_protocol_in_their_order(daemon: DaemonProcess) -> None:
    printed = json.loads(done(daemon.directory, "status", "--json"))
    place = DaemonLocation(directory=daemon.directory, address=None)
    with OperatorClient.of(place) as operator, operator.calls() as (channel, metadata):
        answer = pb_grpc.AdminServiceStub(channel).GetStatus(pb.GetStatusRequest(), metadata=metadata, timeout=10)
    keys = json_format.MessageToDict(
        answer, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )

    assert list(printed) == [*keys, "in_flight", "page"]
