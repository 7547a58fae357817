from __future__ import annotations

from dataclasses import replace

import pytest

from compiler_daemon.admin.answers import DaemonState, WorkerState
from compiler_daemon.admin.sweep.cell import CellResult, WarmResult
from compiler_daemon.admin.sweep.estimate import DaemonLoad, Progress, remaining_seconds
from compiler_daemon.admin.sweep.plan import Cell
from compiler_daemon.admin.sweep.recompile_limit import warnings

NOTHING = Progress(waiting=0, running_s=[], done_s=[], compiles_per_cell=0)


def test_nothing_is_said_before_anything_is_known() -> None:
    assert remaining_seconds(replace(NOTHING, waiting=4, running_s=[3.0]), DaemonLoad(), jobs=2) is None


def test_the_first_estimate_is_the_daemons_queue_at_its_usual_speed() -> None:
    load = DaemonLoad(compiles=6, workers=2, compile_s=10.0)

    assert remaining_seconds(replace(NOTHING, waiting=4), load, jobs=2) == 30.0


def test_trainers_or_workers_are_waited_for_whoever_takes_longer() -> None:
    progress = Progress(waiting=4, running_s=[10.0, 0.0], done_s=[10.0, 30.0], compiles_per_cell=2.0)

    assert remaining_seconds(progress, DaemonLoad(), jobs=2) == pytest.approx((10 + 20 + 4 * 20) / 2)
    assert remaining_seconds(progress, DaemonLoad(compiles=2, workers=1, compile_s=30.0), jobs=2) == 300.0


def test_a_cell_that_takes_longer_than_the_others_did_is_expected_to_end_at_once() -> None:
    progress = Progress(waiting=0, running_s=[90.0], done_s=[10.0], compiles_per_cell=1.0)

    assert remaining_seconds(progress, DaemonLoad(), jobs=1) == 0.0


def test_the_workshop_is_read_from_the_daemons_status() -> None:
    state = DaemonState(
        queued=3,
        workers=(WorkerState(state="busy"), WorkerState(state="idle")),
        counters={"compile_seconds": 40, "compiles_done": 8},
    )

    assert DaemonLoad.of(state) == DaemonLoad(compiles=4, workers=2, compile_s=5.0)
    assert DaemonLoad.of(DaemonState()) == DaemonLoad()


def cell(name: str, *keys: str, code: str = "forward (model.py:3)", limit: int = 4, hit: bool = False) -> CellResult:
    rows = tuple(WarmResult(key=key, code=code, outcome="compiled", seconds=1.0, why="") for key in keys)
    described = Cell(sweep="", values=(("size", name),), command=("train", name))
    return CellResult(cell=described, seconds=1.0, rows=rows, recompile_limit=limit, hit_limit=hit)


def test_no_warning_where_all_graphs_together_stay_within_the_limit() -> None:
    assert warnings([cell("1", "a", "b"), cell("2", "b", "c", "d")]) == []


def test_a_cell_at_the_limit_is_warned_of_with_what_to_do() -> None:
    (sentence,) = warnings([cell("1", "a", "b", "c", "d"), cell("2", "a")])

    assert "size=1: 4 graphs of forward (model.py:3)" in sentence
    assert "torch._dynamo.config.recompile_limit = 8" in sentence


def test_a_cell_that_dynamo_ran_eagerly_is_said_to_be_incomplete() -> None:
    (sentence,) = warnings([cell("1", "a", "b", "c", "d", hit=True)])

    assert "ran a function eagerly" in sentence
    assert "not warmed" in sentence


def test_cells_that_only_together_pass_the_limit_are_warned_of_once() -> None:
    (sentence,) = warnings([cell("1", "a", "b", "c"), cell("2", "b", "d", "e"), cell("3", "x", code="other (m.py:1)")])

    assert "all cells together have 5 graphs of forward (model.py:3)" in sentence
    assert "recompile_limit = 9" in sentence


def test_graphs_of_cells_without_a_report_are_not_counted() -> None:
    assert warnings([cell("1", *"abcdefgh", limit=0)]) == []
