"""The log of runs is bounded, and never gets in the way of a start."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from compiler_daemon.errors import RunLogError
from compiler_daemon.insight.runs import GraphRecord, RunLog, RunReport
from compiler_daemon.insight.runs import log as log_module
from tests.daemon.daemon_process import ENVIRONMENT


def record(number: int = 1, **fields: object) -> GraphRecord:
    plain: dict[str, object] = {
        "number": number, "key": "k", "outcome": "hit", "reason": "", "message": "", "tried": 0, "waited_s": 0.0,
        "saved_s": 1.0, "spent_s": 0.0, "graph": "", "asked": time.time(),
    }  # fmt: skip
    return GraphRecord(**{**plain, **fields})  # type: ignore[arg-type]


def report(run: str, *graphs: GraphRecord, program: str = "p") -> RunReport:
    return RunReport(
        run=run, program=program, pid=1, environment=ENVIRONMENT, started=time.time(), graphs=graphs, fallbacks={},
        unreported=0, ended=False,
    )  # fmt: skip


def test_the_oldest_runs_go_and_their_figures_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_MAX_RUNS", 3)
    log = RunLog(tmp_path / "runs.sqlite3")
    for number in range(7):
        log.add(report(f"run-{number}", record()))

    assert [run.run for run in log.last_runs(10)] == ["run-6", "run-5", "run-4"]
    assert log.graphs("run-0") == []
    (program,) = log.programs()
    assert (program.runs, program.outcomes["hit"], program.saved_s) == (7, 7, 7.0)
    log.close()


def test_the_graphs_of_all_runs_together_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_MAX_GRAPHS", 10)
    log = RunLog(tmp_path / "runs.sqlite3")
    for number in range(5):
        log.add(report(f"run-{number}", *(record(n) for n in range(4))))

    assert sum(len(log.graphs(f"run-{number}")) for number in range(5)) <= 10
    assert len(log.graphs("run-4")) == 4
    log.close()


def test_the_graphs_of_one_run_are_bounded_and_the_rest_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "MAX_GRAPHS_PER_RUN", 3)
    log = RunLog(tmp_path / "runs.sqlite3")

    new = log.add(report("run", *(record(n) for n in range(5))))

    run = log.run("run")
    assert run is not None
    assert (len(new), run.unreported) == (3, 2)
    log.close()


def test_programs_that_were_not_heard_of_for_longest_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_MAX_PROGRAMS", 2)
    log = RunLog(tmp_path / "runs.sqlite3")
    for name in "abc":
        log.add(report(f"run-{name}", record(cause="new", outcome="compiled_by_daemon"), program=name))

    assert [program.program for program in log.programs()] == ["c", "b"]
    log.close()


def test_refused_graphs_are_bounded_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_MAX_REFUSED_BYTES", 1000)
    log = RunLog(tmp_path / "runs.sqlite3")
    graphs = [bytes([number]) * 240 for number in range(8)]
    for number, data in enumerate(graphs):
        log.keep_refused(ENVIRONMENT, f"key-{number}", data, program="p")

    kept = [data for data in graphs if log.refused_graph(log_module.digest_of(data)) == data]

    assert kept == graphs[-4:]
    log.close()


def test_the_file_of_a_newer_daemon_is_set_aside_whole(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite3"
    RunLog(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()

    log = RunLog(path)

    assert log.programs() == []
    assert path.with_name("runs.sqlite3.damaged").exists()
    log.close()


def test_a_closed_log_says_so(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "runs.sqlite3")
    log.close()
    log.close()

    with pytest.raises(RunLogError, match="closed"):
        log.programs()
