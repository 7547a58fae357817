"""When a compile-only program ends by itself."""

from __future__ import annotations

import threading

import pytest

from compile_client.graphs.rounds import Rounds


def test_a_program_ends_after_its_steps_without_a_new_graph_and_not_before() -> None:
    rounds = Rounds(3)
    forward, backward = rounds.new_graph(), rounds.new_graph()
    for _ in range(3):
        rounds.ran(forward)
        rounds.ran(backward)

    with pytest.raises(SystemExit) as ended:
        rounds.ran(forward)

    assert ended.value.code == 0


def test_a_new_graph_begins_the_count_anew() -> None:
    rounds = Rounds(2)
    first = rounds.new_graph()
    for _ in range(3):
        rounds.ran(first)
        rounds.ran(first)
        rounds.new_graph()

    rounds.ran(first)


def test_without_a_limit_it_runs_on() -> None:
    rounds = Rounds(0)
    graph = rounds.new_graph()

    for _ in range(1000):
        rounds.ran(graph)


def test_a_thread_of_the_program_is_not_ended_in_its_place() -> None:
    rounds, ended = Rounds(1), list[int]()
    graph = rounds.new_graph()

    def run() -> None:
        for _ in range(5):
            rounds.ran(graph)
        ended.append(5)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert ended == [5]
    with pytest.raises(SystemExit):
        rounds.ran(graph)
