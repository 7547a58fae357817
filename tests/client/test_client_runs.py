"""A process reports its run in the background, within bounds, and never delays the training."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from compile_client.reporting.run_queue import RunQueue
from compile_client.session.client import DaemonClient
from compile_client.transport.records import GraphNote, RunPart
from compile_wire.limits import MAX_GRAPHS_PER_REPORT, MAX_GRAPHS_PER_RUN
from compile_wire.v1 import runs_pb2 as pb
from tests.client.client_samples import KEY
from tests.client.fake_daemon import FakeDaemon


def note(number: int, outcome: Any = "compiled_by_daemon", **fields: Any) -> GraphNote:
    return GraphNote(**{"number": number, "key": KEY, "outcome": outcome, "begun": time.monotonic(), **fields})


class Ear:
    """A receiver of reports that misses the first `lost` parts."""

    def __init__(self, *, lost: int = 0, knows: bool = True) -> None:
        self.parts: list[RunPart] = []
        self.tried = 0
        self._lost = lost
        self._knows = knows

    def __call__(self, part: RunPart, timeout_s: float) -> bool | None:
        self.tried += 1
        if not self._knows:
            return None
        if self.tried <= self._lost:
            return False
        self.parts.append(part)
        return True

    @property
    def numbers(self) -> list[int]:
        return [graph.number for part in self.parts for graph in part.graphs]


def test_graphs_are_told_together_and_none_is_told_twice() -> None:
    ear = Ear()
    log = RunQueue(ear, lambda: {"timeout": 1}, gather_s=60.0)
    for number in range(1, 6):
        log.note(note(number))

    log.finish(5.0)

    (part,) = ear.parts
    assert ear.numbers == [1, 2, 3, 4, 5]
    assert (part.ended, part.fallbacks, part.run) == (True, {"timeout": 1}, log.run)


def test_many_graphs_go_in_parts_of_bounded_size() -> None:
    ear = Ear()
    log = RunQueue(ear, dict, gather_s=60.0)
    for number in range(3 * MAX_GRAPHS_PER_REPORT):
        log.note(note(number))

    log.finish(20.0)

    assert sorted(ear.numbers) == list(range(3 * MAX_GRAPHS_PER_REPORT))
    assert max(len(part.graphs) for part in ear.parts) <= MAX_GRAPHS_PER_REPORT
    assert [part.ended for part in ear.parts][-1]


def test_what_did_not_arrive_is_told_again_in_its_order() -> None:
    ear = Ear(lost=2)
    log = RunQueue(ear, dict, gather_s=0.01)
    log.note(note(1))
    log.note(note(2))
    deadline = time.monotonic() + 20
    while not ear.parts and time.monotonic() < deadline:
        time.sleep(0.01)

    log.finish(5.0)

    assert sorted(ear.numbers) == [1, 2]


def test_a_daemon_that_knows_no_reports_is_told_nothing_more() -> None:
    ear = Ear(knows=False)
    log = RunQueue(ear, dict, gather_s=0.01)
    log.note(note(1))
    log.finish(5.0)
    log.note(note(2))
    log.finish(5.0)

    assert ear.tried == 1


def test_more_graphs_than_are_remembered_are_counted() -> None:
    ear = Ear()
    log = RunQueue(ear, dict, gather_s=60.0)
    for number in range(MAX_GRAPHS_PER_RUN + 7):
        log.note(note(number))

    log.finish(30.0)

    assert len(ear.numbers) == MAX_GRAPHS_PER_RUN
    assert ear.parts[-1].unreported == 7


def test_a_report_that_hangs_does_not_hold_up_the_end() -> None:
    release = threading.Event()

    def hang(part: RunPart, timeout_s: float) -> bool:
        return release.wait(30)

    log = RunQueue(hang, dict, gather_s=0.01)
    log.note(note(1))
    deadline = time.monotonic() + 20
    while not log._sending.locked() and time.monotonic() < deadline:
        time.sleep(0.01)
    start = time.monotonic()

    log.finish(0.5)
    took = time.monotonic() - start
    release.set()

    assert took < 10


def test_a_run_is_reported_when_the_process_ends(daemon: FakeDaemon, client: DaemonClient) -> None:
    assert client.available()
    client.remember_graph(note(1, "hit", saved_s=2.5))
    client.remember_graph(note(2, "compiled_here", reason="not_carried", message="node x:\nno", spent_s=1.0))

    client.close()

    reports = daemon.requests["ReportRun"]
    told = {graph.number: graph for request in reports for graph in request.graphs}
    assert (reports[-1].program, reports[-1].ended) == ("test", True)
    assert (told[1].outcome, told[1].saved_s) == (pb.GRAPH_OUTCOME_HIT, 2.5)
    assert (told[2].reason, told[2].message) == ("not_carried", "node x: no")


def test_a_hit_costs_no_call_of_its_own(daemon: FakeDaemon, client: DaemonClient) -> None:
    assert client.available()
    before = sum(daemon.calls.values())

    for number in range(20):
        client.remember_graph(note(number, "hit"))

    assert sum(daemon.calls.values()) == before


@pytest.mark.parametrize("trouble", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, None])
def test_trouble_with_a_report_is_neither_counted_nor_said(
    daemon: FakeDaemon, client: DaemonClient, caplog: pytest.LogCaptureFixture, trouble: grpc.StatusCode | None
) -> None:
    caplog.set_level(logging.INFO, "compile_client")
    if trouble is None:
        daemon.stop()
        daemon.knows_runs = False
        daemon.start()
    else:
        daemon.faults.abort["ReportRun"] = trouble
    assert client.available()
    client.remember_graph(note(1))

    client.close()

    assert client.counters.as_dict()["fallbacks"] == {}
    assert [record.getMessage() for record in caplog.records] == []


def test_an_explanation_is_asked_for_and_said_line_by_line(
    daemon: FakeDaemon, make_client: Callable[..., DaemonClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "compile_client")
    daemon.explanation = pb.ExplainRunResponse(
        graphs=[
            pb.GraphExplanation(
                number=1,
                key=KEY,
                outcome=pb.GRAPH_OUTCOME_COMPILED_BY_DAEMON,
                sentence="never seen before; the nearest known request differs in",
                differences=[pb.GraphDifference(kind="shape", text="input 0 (x): shape [8], was\n[16]")],
                more=2,
            )
        ]
    )
    client = make_client(explain=True)
    assert client.available()
    client.remember_graph(note(1))

    client.close()

    assert [record.getMessage() for record in caplog.records] == [
        f"compile daemon: graph 1 ({KEY[:8]}) was compiled by the daemon: never seen before; "
        "the nearest known request differs in",
        "compile daemon:     input 0 (x): shape [8], was [16]",
        "compile daemon:     and 2 more differences",
    ]


def test_without_a_daemon_the_explanation_is_what_is_known_here(
    make_client: Callable[..., DaemonClient], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "compile_client")
    client = make_client(explain=True)
    client.remember_graph(note(1, "compiled_here", reason="absent", message="no daemon at d"))

    client.close()

    lines = [record.getMessage() for record in caplog.records]
    assert "the daemon cannot be asked" in lines[0]
    assert lines[1] == f"compile daemon: graph 1 ({KEY[:8]}) was compiled here (absent): no daemon at d"


def test_no_explanation_is_asked_for_where_nothing_was_missed(
    daemon: FakeDaemon, make_client: Callable[..., DaemonClient]
) -> None:
    client = make_client(explain=True)
    assert client.available()
    client.remember_graph(note(1, "hit"))

    client.close()

    assert daemon.calls["ExplainRun"] == 0
