"""In `async` mode training goes on eagerly while the daemon compiles, and switches to compiled code in between."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.conftest import Daemon, Lab, wait_until

_ASYNC = {"TORCH_COMPILE_CLIENT_ASYNC": "1"}


def _right(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["losses"][0] == pytest.approx(row["losses"][1], rel=1e-4)
        assert row["gradients_apart"] < 1e-5


@pytest.mark.slow
def test_several_graphs_run_eagerly_until_they_are_there_and_gradients_are_right_all_the_way(
    one_lab: Lab, daemon: Daemon
) -> None:
    first = one_lab.run("swapped.py", "20000", "30", "32", "34", daemon=daemon, **_ASYNC)
    again = one_lab.run("swapped.py", "20000", "30", "32", "34", daemon=daemon, **_ASYNC)

    for outcome in (first, again):
        _right(outcome.result)
        assert outcome.result[-1]["settled"] == 3
        assert outcome.report["cpp_builds"] == outcome.report["compiled_here"] == 0
    assert first.result[0]["settled"] == 0, "the first step waited for a compile"
    assert first.report["compiled_by_daemon"] == 3
    assert again.report["hits"] == 3


@pytest.mark.slow
def test_a_process_that_ends_in_the_middle_ends_well_and_leaves_its_graphs_for_the_next(
    one_lab: Lab, daemon: Daemon
) -> None:
    begun = time.monotonic()
    early = one_lab.run("swapped.py", "4", "36", "38", daemon=daemon, **_ASYNC)
    took = time.monotonic() - begun
    later = one_lab.run("perceptron.py", "36", "38", daemon=daemon)

    assert early.report["graphs"] == early.report["deferred"] + early.report["compiled_by_daemon"] == 2
    assert early.report["fallbacks"] == {}
    assert took < 120
    assert later.report["hits"] + later.report["compiled_by_daemon"] == 2
    assert later.report["compiled_here"] == 0


def test_without_a_daemon_async_is_torch_as_always(one_lab: Lab, daemon: Daemon) -> None:
    outcome = one_lab.run("swapped.py", "2", "40", daemon=one_lab.folder / "nobody", **_ASYNC)

    _right(outcome.result)
    assert outcome.report["compiled_here"] == 1
    assert outcome.report["deferred"] == 0


def test_a_daemon_that_dies_under_a_graph_costs_one_compile_at_a_step(lab: Lab) -> None:
    daemon = lab.daemon()
    trainer = lab.start("swapped.py", "20000", "42", daemon=daemon, **_ASYNC)
    wait_until(lambda: daemon.counters().get("compiles_started"), what="a compile started")
    daemon.kill()
    outcome = trainer.wait()

    assert outcome.code == 0, outcome.err
    _right(outcome.result)
    assert outcome.report["compiled_here"] == 1
    assert sum(outcome.report["fallbacks"].values()) >= 1
