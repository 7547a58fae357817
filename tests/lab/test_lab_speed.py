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
from benches.harness.measure import BenchError, CacheDirs, Ratio, Row, RunningTrainer, TrainerFailedError, finish
from benches.startup import __main__ as startup
from benches.startup import rows as startup_rows
from benches.startup.journal import Journal


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
    goals = {ratio.name: ratio.goal for ratio in startup_rows.ratios_of("gpt", []) if ratio.goal is not None}
    assert goals == {
        "daemon_warm_empty/torch_portable_empty": 0.25,
        "daemon_warm_empty/torch_local_warm": 0.65,
        "daemon_cold/torch_cold": 0.85,
        "daemon_skip_empty/torch_local_warm": 0.55,
        "daemon_skip_empty/torch_portable_empty": 0.09,
        "daemon_skip_x8/eager_x8": 1.6,
    }
    assert startup_rows.OF_EAGER == {"multires": 1.5, "multires@8": 1.6, "dit@24": 1.6}
    ofs = {ratio.name: ratio.goal for ratio in startup_rows.ratios_of("dit@24", ["collector"])}
    assert ofs["daemon_skip_empty/eager"] == 1.6
    assert ofs["daemon_skip_empty/daemon_without_collector"] is None
    first = {ratio.name: ratio.goal for ratio in first_run.RATIOS if ratio.goal is not None}
    assert first == {"run/torch": 1.1, "auto/torch": 1.1, "served/torch": 1.1}
    assert sweep.GOALS == {("seconds", 4): 0.65, ("seconds", 8): 0.40, ("cpu_s", 4): 0.50, ("cpu_s", 8): 0.35}
    assert {ratio.name: ratio.goal for ratio in overhead.RATIOS if ratio.goal} == {"local_skip/local_on:step_ms": 1.02}
    assert overhead.LIMITS == {"absent_adds:process_ms": 10.0, "daemon_idle:rss_mib": 60.0}


@pytest.mark.slow
def test_what_needs_no_compile_is_measured(tmp_path: Path) -> None:
    document = _bench("overhead", "--rows", "off,absent,client_import,daemon_idle", "--rounds", "1", folder=tmp_path)
    assert document["rows"]["absent_adds"]["rounds"] == 6
    assert document["rows"]["off"]["process_ms"] > document["rows"]["off"]["import_ms"] > 0
    assert 20 < document["rows"]["daemon_idle"]["rss_mib"] < 100


@pytest.mark.slow
def test_a_start_is_taken_apart_for_the_model_of_each_bench(tmp_path: Path) -> None:
    quick = ("--rows", "eager", "--rounds", "1", "--resolutions", "16")
    models = "multires,gradients@1,backbones@2,gpt@1,dit@1"
    document = _bench("startup", *quick, "--models", models, folder=tmp_path)
    assert list(document["rows"]) == [f"eager@{model}" for model in models.split(",")]
    for row in document["rows"].values():
        assert row["seconds"] > row["import_torch_s"] + row["first_run_s"] > 0
        assert row["graphs"] == row["cpp_builds"] == row["frames_traced"] == 0


def test_a_measurement_that_was_stopped_goes_on_from_there_and_keeps_the_rows_of_other_models(tmp_path: Path) -> None:
    command = ("--rows", "eager", "--rounds", "2", "--models", "gpt@1", "--state", str(tmp_path / "state"), "--add")
    before = {"bench": "startup", "rows": {"eager@other": {"seconds": 1.0}}, "models": ["other"], "goals": {"a/b": 1.0}}
    out = tmp_path / "out.json"
    stopped = _startup(*command, "--out", str(out), "--stop-after", "0")
    assert (stopped.returncode, out.exists()) == (3, False)
    begun = _startup(*command, "--out", str(out), "--stop-after", "1")
    assert begun.returncode == 3
    (first,) = _starts(tmp_path / "state" / "gpt@1")
    out.write_text(json.dumps(before | {"machine": measure.machine()}))

    ended = _startup(*command, "--out", str(out))

    assert ended.returncode == 0, ended.stderr[-2000:]
    assert _starts(tmp_path / "state" / "gpt@1")[0] == first
    document = json.loads(out.read_text())
    assert document["models"] == ["other", "gpt@1"]
    assert (document["rows"]["eager@other"], document["goals"]["a/b"]) == ({"seconds": 1.0}, 1.0)
    assert document["rows"]["eager@gpt@1"]["rounds"] == 2
    assert document["command"] == "python -m benches.startup --rows eager --rounds 2 --models gpt@1"


def test_figures_of_two_measurements_are_never_mixed(tmp_path: Path) -> None:
    Journal(tmp_path, {"torch": "2.13.0"}).measured("eager", 0, {"seconds": 1.0})
    assert Journal(tmp_path, {"torch": "2.13.0"}).figures("eager", 0) is not None
    with pytest.raises(BenchError, match="of another measurement"):
        Journal(tmp_path, {"torch": "2.15.0"})

    other = tmp_path / "of-another-machine.json"
    other.write_text(json.dumps({"machine": {"cores": 1}, "rows": {}}))
    with pytest.raises(BenchError, match="of another machine"):
        finish("startup", {}, (), None, added_to=other)


def test_other_losses_fail_the_bench_and_those_of_torchs_precompile_are_said() -> None:
    said = startup._check({}, {"torch_cold": [1.0], "torch_precompile_local": [2.0], "eager": [3.0]})
    assert said == {"torch_precompile_local": "its losses are [2.0], and all others' [1.0]"}
    assert startup._check({}, {"torch_cold": [1.0], "torch_precompile_local": [1.0]}) == {}
    with pytest.raises(BenchError, match="the losses differ"):
        startup._check({}, {"torch_cold": [1.0], "daemon_skip_empty": [2.0]})


def test_a_trainer_that_fails_says_how(tmp_path: Path) -> None:
    home = CacheDirs.fresh(tmp_path / "home")
    program = "class OwnError(Exception): pass\nraise OwnError('no such thing\\n\\nand more')"
    with pytest.raises(TrainerFailedError, match="exit code 1") as raised:
        RunningTrainer(["-c", program], home, tmp_path / "log").end()
    assert raised.value.last_line == "OwnError: no such thing"


@pytest.mark.slow
def test_a_start_that_skips_its_trace_traces_nothing_and_those_less_a_part_build_nothing_either(tmp_path: Path) -> None:
    rows = ("--rows", "torch_precompile_local,daemon_warm_empty,daemon_skip_empty", "--rounds", "1")
    document = _bench("startup", *rows, "--models", "gpt@1", "--without", "collector,traces", folder=tmp_path)
    frames = {name: row["frames_traced"] for name, row in document["rows"].items()}
    assert frames == {
        "torch_precompile_local": 0,
        "daemon_warm_empty": 1,
        "daemon_skip_empty": 0,
        "daemon_without_collector": 0,
        "daemon_without_traces": 1,
    }
    assert document["rows"]["daemon_skip_empty"]["traces_skipped"] == 1


@pytest.mark.slow
def test_another_activation_is_never_the_first_processs_with_the_daemon(tmp_path: Path) -> None:
    document = _bench("startup.activations", folder=tmp_path)
    rows = {(row["where"], row["way"]): row for row in document["rows"]}
    for where, guard in {"module": "G['ACTIVATION']", "attribute": "L['self'].activation"}.items():
        assert rows[where, "daemon_skip"]["computed"] == "eager's"
        assert guard in rows[where, "daemon_skip"]["said"]
        # torch's own, whatever it is: a later version that computes eager's is welcome.
        assert rows[where, "torch_precompile"]["computed"]


def _startup(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benches.startup", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def _starts(folder: Path) -> list[str]:
    return [line for line in (folder / "starts.jsonl").read_text().splitlines() if '"round"' in line]


@pytest.mark.parametrize("given", ["unet", "multires@deep"])
def test_a_model_that_nobody_knows_is_refused_in_words(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        startup.main(["--models", given])
    assert f"no model {given}; there are multires, gradients, backbones, gpt, dit," in capsys.readouterr().err


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
