"""In compile-only mode a trainer hands its graphs over and trains eagerly; the trainers after it compile nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Daemon, Lab, Outcome


def outcomes(outcome: Outcome) -> list[str]:
    rows: list[dict[str, Any]] = outcome.report["warm"]["graphs"]
    return [row["outcome"] for row in rows]


@pytest.mark.slow
def test_all_kinds_of_graphs_get_the_keys_that_an_ordinary_run_has(one_lab: Lab, daemon: Daemon) -> None:
    ahead = one_lab.run("mixed.py", daemon=daemon, bare=True, TORCH_COMPILE_CLIENT_WARM="1")
    after = one_lab.run("mixed.py", daemon=daemon, bare=True)

    assert ahead.result["clean"]
    assert ahead.result["numbers"] == pytest.approx(after.result["numbers"], rel=1e-3, abs=1e-5)
    assert ahead.result["graphs"] == after.result["graphs"]
    assert set(outcomes(ahead)) <= {"compiled", "there"}
    assert ahead.report["compiled_here"] == ahead.report["cpp_builds"] == 0
    assert after.report["hits"] + after.report["hits_local"] == after.report["graphs"] == ahead.report["graphs"] == 7
    assert after.report["compiled_here"] == after.report["compiled_by_daemon"] == after.report["cpp_builds"] == 0


def test_a_graph_is_handed_over_without_waiting_and_a_second_run_finds_it_there(one_lab: Lab, daemon: Daemon) -> None:
    first = one_lab.run("perceptron.py", "33", "35", daemon=daemon, TORCH_COMPILE_CLIENT_WARM="1")
    again = one_lab.run("perceptron.py", "33", "35", daemon=daemon, TORCH_COMPILE_CLIENT_WARM="1")

    assert outcomes(first) == ["compiled"] * 2
    assert outcomes(again) == ["there"] * 2
    # The first trainer waited for the handshake only, and not for a compile.
    assert first.report["seconds_waited"] < sum(row["seconds"] for row in first.report["warm"]["graphs"])
    assert "2 compiled by the daemon" in first.err
    assert all("external_utils.py" in row["code"] for row in first.report["warm"]["graphs"])
    assert first.report["warm"]["recompile_limit"] == 8


def test_a_graph_that_cannot_be_sent_is_compiled_and_published_as_always(one_lab: Lab, daemon: Daemon) -> None:
    ahead = one_lab.run("own_operator.py", "7", daemon=daemon, TORCH_COMPILE_CLIENT_WARM="1")
    after = one_lab.run("own_operator.py", "7", daemon=daemon)

    assert outcomes(ahead) == ["here"]
    assert ahead.report["published"] == 1
    assert after.report["hits"] == after.report["graphs"] == 1


def test_without_a_daemon_nothing_is_compiled_and_the_trainer_runs(one_lab: Lab, tmp_path: Path) -> None:
    outcome = one_lab.run("perceptron.py", "37", daemon=tmp_path / "nobody", TORCH_COMPILE_CLIENT_WARM="1")

    assert outcomes(outcome) == ["lost"]
    assert outcome.report["cpp_builds"] == 0
    assert outcome.report["fallbacks"] == {"absent": 1}
    assert len(outcome.result) == 2
