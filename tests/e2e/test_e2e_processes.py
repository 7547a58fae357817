"""Trainers of several processes: ranks that train together, and workers that load data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Daemon, Lab, Outcome, check_accounts

_LAUNCHER = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0")


def test_two_ranks_get_the_same_answer_for_the_same_graph_and_one_compile(one_lab: Lab, daemon: Daemon) -> None:
    alone = one_lab.run("ranks.py", launcher=_LAUNCHER)
    before = daemon.counters()
    first = one_lab.run("ranks.py", launcher=_LAUNCHER, daemon=daemon, bare=True)
    between = daemon.counters()
    second = one_lab.run("ranks.py", launcher=_LAUNCHER, daemon=daemon, bare=True)

    assert first.result == second.result == alone.result
    assert first.result[0]["norm"] == first.result[1]["norm"]
    graphs = {report["graphs"] for report in _of_ranks(first) + _of_ranks(second)}
    assert len(graphs) == 1
    assert graphs != {0}
    for report in _of_ranks(first):
        check_accounts(report)
        assert report["compiled_here"] == 0
    assert between["compiles_started"] - before.get("compiles_started", 0) == graphs.pop()
    for report in _of_ranks(second):
        check_accounts(report)
        # Both ranks share one local cache, so what the first one installs may be a local hit for the second.
        assert report["hits"] + report["hits_local"] == report["graphs"]
        assert report["cpp_builds"] == 0
    assert sum(report["hits"] for report in _of_ranks(second)) > 0
    assert daemon.counters()["compiles_started"] == between["compiles_started"]


@pytest.mark.slow
def test_workers_that_load_data_are_forked_from_a_trainer_with_an_open_connection(one_lab: Lab, daemon: Daemon) -> None:
    alone = one_lab.run("loader.py")
    first = one_lab.run("loader.py", daemon=daemon)
    compiled = daemon.counters()["compiles_started"]
    second = one_lab.run("loader.py", daemon=daemon)

    assert first.result == second.result == alone.result
    assert second.report["hits"] == second.report["graphs"] > 0
    assert second.report["compiled_here"] == 0
    assert daemon.counters()["compiles_started"] == compiled, "a worker's transform was compiled again"


def _of_ranks(outcome: Outcome) -> list[dict[str, Any]]:
    """Return the reports of the two ranks: one is the named file, the other has a name derived from it."""
    files = sorted(Path(outcome.folder).glob("report.json*"))
    assert len(files) == 2, files
    return [json.loads(file.read_text()) for file in files]
