from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from compile_client.session.background_compiles import Answer, BackgroundCompiles, WarmResult
from compile_client.session.client import DaemonClient
from compile_wire.environment import environment_id
from compile_wire.v1 import compiler_daemon_pb2 as pb
from tests.client.client_samples import ENVIRONMENT, KEY
from tests.client.fake_daemon import FakeDaemon


def test_what_was_asked_for_ends_in_a_row_and_the_same_key_is_asked_for_once() -> None:
    asked: list[str] = []

    def answer(key: str, graph: bytes) -> Answer:
        asked.append(key)
        return Answer("compiled", float(len(graph)))

    ahead = BackgroundCompiles(answer, max_in_flight=2)
    for key in ("a", "b", "a"):
        ahead.ask(key, "forward (model.py:1)", b"1234")
    ahead.flush(30)

    assert sorted(asked) == ["a", "b"]
    rows = {(row["key"], row["outcome"]): row["seconds"] for row in ahead.as_rows()}
    assert rows == {("a", "compiled"): 4.0, ("b", "compiled"): 4.0, ("a", "repeated"): 0.0}
    assert ahead.line() == "compile-only, 3 graphs: 2 compiled by the daemon, 1 asked for before"


def test_asking_waits_while_as_many_as_allowed_are_under_way() -> None:
    go = threading.Event()
    ahead = BackgroundCompiles(lambda _key, _graph: Answer("there") if go.wait(30) else Answer("lost"), max_in_flight=1)
    ahead.ask("a", "", b"")
    second = threading.Thread(target=ahead.ask, args=("b", "", b""))
    second.start()

    second.join(0.2)
    assert second.is_alive(), "the second request found a place while the first held the only one"
    go.set()
    second.join(30)
    ahead.flush(30)

    assert [row["outcome"] for row in ahead.as_rows()] == ["there", "there"]


def test_what_is_not_answered_in_time_is_lost_once_whatever_comes_later() -> None:
    go, done = threading.Event(), threading.Event()

    def answer(_key: str, _graph: bytes) -> Answer:
        go.wait(30)
        done.set()
        return Answer("compiled", 1.0)

    ahead = BackgroundCompiles(answer, max_in_flight=1)
    ahead.ask("a", "", b"")
    ahead.flush(0.01)
    go.set()
    assert done.wait(30)
    ahead.ask("b", "", b"")  # this gets its turn only after the first thread has given up its own
    ahead.flush(30)

    assert [(row["key"], row["outcome"]) for row in ahead.as_rows()] == [("a", "lost"), ("b", "compiled")]


def test_graphs_that_went_another_way_are_rows_too() -> None:
    ahead = BackgroundCompiles(lambda _key, _graph: Answer("there"), max_in_flight=1)
    ahead.note(WarmResult(key="k", code="", outcome="here", seconds=2.0, why="not carried"))

    assert ahead.as_rows() == [
        {"key": "k", "code": "", "outcome": "here", "seconds": 2.0, "why": "not carried", "host": ""}
    ]


def outcomes(client: DaemonClient) -> list[tuple[object, object]]:
    client.close()
    warm: Any = client.counters.as_dict()["warm"]
    return [(row["outcome"], row["why"]) for row in warm["graphs"]]


def test_a_daemon_whose_queue_is_full_is_asked_again(
    daemon: FakeDaemon, make_client: Callable[..., DaemonClient]
) -> None:
    client = make_client(warm=True)
    daemon.faults.abort["CompileGraph"] = grpc.StatusCode.RESOURCE_EXHAUSTED

    client.background.ask(KEY, "forward (model.py:1)", b"graph")
    end = time.monotonic() + 15
    while daemon.calls["CompileGraph"] < 2:
        assert time.monotonic() < end, "it was not asked again"
        time.sleep(0.01)
    del daemon.faults.abort["CompileGraph"]

    assert outcomes(client) == [("compiled", "")]
    assert client.counters.as_dict()["fallbacks"] == {}


def test_a_refusal_and_a_trouble_are_rows_with_their_reasons(
    daemon: FakeDaemon, make_client: Callable[..., DaemonClient]
) -> None:
    client = make_client(warm=True)
    daemon.faults.refuse_graph = pb.Refused(reason=pb.Refused.REASON_UNSUPPORTED, message="no such operator")
    client.background.ask("k1", "", b"graph")
    client.background.flush(15)
    daemon.faults.refuse_graph = None
    daemon.faults.abort["CompileGraph"] = grpc.StatusCode.UNAVAILABLE
    client.background.ask("k2", "", b"graph")

    (refused, why), (lost, trouble) = outcomes(client)
    assert (refused, why) == ("refused", "unsupported: no such operator")
    assert lost == "lost"
    assert str(trouble).startswith("unavailable: ")
    assert client.counters.as_dict()["fallbacks"] == {"unavailable": 1}


def test_the_report_names_the_environment_and_an_ordinary_one_says_nothing_of_it(
    daemon: FakeDaemon, make_client: Callable[..., DaemonClient]
) -> None:
    warm, ordinary = make_client(warm=True), make_client()
    warm.background.ask(KEY, "", b"graph")
    warm.close()
    ordinary.close()

    found: Any = warm.counters.as_dict()["warm"]
    assert found["environment"] == environment_id(ENVIRONMENT)
    assert "warm" not in ordinary.counters.as_dict()


@pytest.mark.parametrize(
    ("said", "known"),
    [("", ""), ("node-07", "node-07"), ("node\x1b[31m\n07" + "x" * 500, ("node[31m 07" + "x" * 500)[:64])],
)
def test_the_node_that_compiled_a_graph_is_in_its_row_in_plain_text(
    daemon: FakeDaemon, make_client: Callable[..., DaemonClient], said: str, known: str
) -> None:
    client = make_client(warm=True)
    daemon.faults.host = said  # empty, as from a daemon that knows of no other nodes

    client.background.ask(KEY, "forward (model.py:1)", b"graph")
    client.close()

    (row,) = client.background.as_rows()
    assert (row["outcome"], row["host"]) == ("compiled", known)
