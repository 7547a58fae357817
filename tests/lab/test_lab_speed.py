"""The speed benches: their arithmetic, the form of their results, and a short run of those that compile nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benches import first_run, overhead, speed, sweep
from benches.harness import measure
from benches.harness.measure import Ratio, Row, finish
from benches.startup import __main__ as startup


def _row(**figures: list[float]) -> Row:
    row = Row()
    for number in range(len(next(iter(figures.values())))):
        row.add({name: values[number] for name, values in figures.items()})
    return row


def test_a_ratio_is_of_medians_and_is_missing_where_a_row_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = {"a": _row(seconds=[1.0, 9.0, 2.0]), "b": _row(seconds=[4.0, 4.0, 5.0])}
    ratios = (Ratio("a", "b", 0.6), Ratio("b", "a", 1.0), Ratio("a", "c", 0.1))

    document = finish("bench", rows, ratios, tmp_path / "out.json", limits={"a:seconds": 3.0, "c:seconds": 1.0})

    assert document["ratios"] == {"a/b": 0.5, "b/a": 2.0}
    assert document["rows"]["a"] == {"seconds": 2.0, "seconds_min": 1.0, "seconds_max": 9.0, "rounds": 3}
    assert document["limits"] == {"a:seconds": 3.0}
    printed = capsys.readouterr().out
    assert json.loads(printed.splitlines()[-1]) == document == json.loads((tmp_path / "out.json").read_text())
    assert "met" in next(line for line in printed.splitlines() if "a/b" in line)
    assert "missed" in next(line for line in printed.splitlines() if "b/a" in line)


def test_the_goals_of_all_benches_come_together_with_what_was_measured() -> None:
    document = {
        "ratios": {"a/b": 0.5},
        "goals": {"a/b": 0.6, "a/not run": 0.1},
        "limits": {"a:rss_mib": 60.0},
        "rows": {"a": {"rss_mib": 47.0}},
    }
    assert speed.goals("one", document) == [
        {"bench": "one", "what": "a/b", "goal": 0.6, "measured": 0.5},
        {"bench": "one", "what": "a:rss_mib", "goal": 60.0, "measured": 47.0},
    ]


def test_every_promise_of_speed_stands_in_a_bench() -> None:
    goals = {ratio.name: ratio.goal for ratio in startup.RATIOS if ratio.goal is not None}
    assert goals == {
        "daemon_warm_empty/torch_portable_empty": 0.25,
        "daemon_warm_empty/torch_local_warm": 0.65,
        "daemon_cold/torch_cold": 0.85,
    }
    first = {ratio.name: ratio.goal for ratio in first_run.RATIOS if ratio.goal is not None}
    assert first == {"run/torch": 1.1, "auto/torch": 1.1, "served/torch": 1.1}
    assert sweep.GOALS == {("seconds", 4): 0.65, ("seconds", 8): 0.40, ("cpu_s", 4): 0.50, ("cpu_s", 8): 0.35}
    assert overhead.LIMITS == {"absent_adds:process_ms": 10.0, "daemon_idle:rss_mib": 60.0}


@pytest.mark.slow
def test_what_needs_no_compile_is_measured(tmp_path: Path) -> None:
    document = _bench("overhead", "--rows", "off,absent,client_import,daemon_idle", "--rounds", "1", folder=tmp_path)
    assert document["rows"]["absent_adds"]["rounds"] == 6
    assert document["rows"]["off"]["process_ms"] > document["rows"]["off"]["import_ms"] > 0
    assert 20 < document["rows"]["daemon_idle"]["rss_mib"] < 100


def test_a_start_is_taken_apart_for_the_model_of_each_bench(tmp_path: Path) -> None:
    quick = ("--rows", "eager", "--rounds", "1", "--resolutions", "16")
    models = "multires,gradients@1,backbones@2"
    document = _bench("startup", *quick, "--models", models, folder=tmp_path)
    assert list(document["rows"]) == [f"eager@{model}" for model in models.split(",")]
    for row in document["rows"].values():
        assert row["seconds"] > row["import_torch_s"] + row["first_run_s"] > 0
        assert row["graphs"] == row["cpp_builds"] == 0


@pytest.mark.parametrize("given", ["unet", "multires@deep"])
def test_a_model_that_nobody_knows_is_refused_in_words(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        startup.main(["--models", given])
    assert f"no model {given}; there are multires, gradients, backbones" in capsys.readouterr().err


def test_a_row_that_nobody_knows_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        measure.arguments("startup", None, ("eager",), rounds=1).parse_args(["--rows", "nobody"])
    assert "no row nobody; there are eager" in capsys.readouterr().err


def _bench(name: str, *arguments: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benches.{name}", *arguments, "--out", str(folder / "out.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads((folder / "out.json").read_text())
    return document
