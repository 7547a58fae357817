from __future__ import annotations

import threading

from compile_client.ahead import Ahead, GraphRow, Outcome


def test_what_was_asked_for_ends_in_a_row_and_the_same_key_is_asked_for_once() -> None:
    asked: list[str] = []

    def answer(key: str, graph: bytes) -> tuple[Outcome, float, str]:
        asked.append(key)
        return "compiled", float(len(graph)), ""

    ahead = Ahead(answer, max_in_flight=2)
    for key in ("a", "b", "a"):
        ahead.ask(key, "forward (model.py:1)", b"1234")
    ahead.flush(30)

    assert sorted(asked) == ["a", "b"]
    rows = {(row["key"], row["outcome"]): row["seconds"] for row in ahead.as_rows()}
    assert rows == {("a", "compiled"): 4.0, ("b", "compiled"): 4.0, ("a", "repeated"): 0.0}
    assert ahead.line() == "compile-only, 3 graphs: 2 compiled by the daemon, 1 asked for before"


def test_asking_waits_while_as_many_as_allowed_are_under_way() -> None:
    go = threading.Event()
    ahead = Ahead(lambda _key, _graph: ("there", 0.0, "") if go.wait(30) else ("lost", 0.0, ""), max_in_flight=1)
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

    def answer(_key: str, _graph: bytes) -> tuple[Outcome, float, str]:
        go.wait(30)
        done.set()
        return "compiled", 1.0, ""

    ahead = Ahead(answer, max_in_flight=1)
    ahead.ask("a", "", b"")
    ahead.flush(0.01)
    go.set()
    assert done.wait(30)
    ahead.ask("b", "", b"")  # gets its place only after the first thread has given it up
    ahead.flush(30)

    assert [(row["key"], row["outcome"]) for row in ahead.as_rows()] == [("a", "lost"), ("b", "compiled")]


def test_graphs_that_went_another_way_are_rows_too() -> None:
    ahead = Ahead(lambda _key, _graph: ("there", 0.0, ""), max_in_flight=1)
    ahead.note(GraphRow(key="k", code="", outcome="here", seconds=2.0, why="not carried"))

    assert ahead.as_rows() == [{"key": "k", "code": "", "outcome": "here", "seconds": 2.0, "why": "not carried"}]
