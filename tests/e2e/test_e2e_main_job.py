from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.e2e.conftest import Daemon, Lab, clean_environment


def test_a_second_process_with_empty_caches_is_served_everything_and_compiles_nothing(
    one_lab: Lab, daemon: Daemon
) -> None:
    alone = one_lab.run("perceptron.py", "4", "6")
    first = one_lab.run("perceptron.py", "4", "6", daemon=daemon, bare=True)
    second = one_lab.run("perceptron.py", "4", "6", daemon=daemon, bare=True)

    assert first.result == second.result == alone.result
    assert first.report["compiled_by_daemon"] == first.report["graphs"] == 2
    assert first.report["cpp_builds"] == 0
    assert second.report["hits"] == second.report["graphs"] == 2
    assert second.report["cpp_builds"] == second.report["triton_compiles"] == second.report["compiled_here"] == 0
    assert second.report["seconds_saved"] > 0
    assert second.report["fallbacks"] == second.report["refused"] == {}


def test_what_torch_has_locally_is_not_asked_of_the_daemon(one_lab: Lab, daemon: Daemon, tmp_path: Path) -> None:
    one_lab.run("perceptron.py", "8", daemon=daemon, caches=tmp_path)
    lookups = daemon.counters()["lookups"]

    again = one_lab.run("perceptron.py", "8", daemon=daemon, caches=tmp_path)

    assert again.report["hits_local"] == again.report["graphs"] == 1
    assert again.report["hits"] == again.report["cpp_builds"] == 0
    assert daemon.counters()["lookups"] == lookups


def test_two_trainers_started_at_once_have_each_graph_compiled_once(one_lab: Lab, daemon: Daemon) -> None:
    before = daemon.counters().get("compiles_started", 0)

    started = [one_lab.start("perceptron.py", "10", "12", daemon=daemon) for _ in range(2)]
    outcomes = [trainer.wait() for trainer in started]

    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert outcomes[0].result == outcomes[1].result
    for outcome in outcomes:
        assert outcome.report["hits"] + outcome.report["compiled_by_daemon"] == 2
        assert outcome.report["compiled_here"] == outcome.report["cpp_builds"] == 0
    assert daemon.counters()["compiles_started"] == before + 2


@pytest.mark.slow
def test_another_virtual_environment_is_served_what_the_first_one_had_compiled(
    one_lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    one_lab.run("perceptron.py", "14", "16", daemon=daemon)
    python = _copied_environment(tmp_path / "elsewhere")

    moved = one_lab.run("perceptron.py", "14", "16", daemon=daemon, python=str(python), bare=True)

    assert moved.report["hits"] == moved.report["graphs"] == 2
    assert moved.report["cpp_builds"] == 0


def test_a_graph_that_the_daemon_cannot_take_is_compiled_here_and_published_for_the_next(
    one_lab: Lab, daemon: Daemon
) -> None:
    first = one_lab.run("own_operator.py", "1", daemon=daemon, bare=True)
    daemon.wait_for_workers()
    second = one_lab.run("own_operator.py", "1", daemon=daemon, bare=True)

    assert first.result == second.result
    assert first.report["refused"] == {"not_carried": 1}
    assert first.report["compiled_here"] == first.report["published"] == 1
    assert second.report["hits"] == 1
    assert second.report["cpp_builds"] == 0


def test_a_graph_that_the_daemon_cannot_take_starts_no_worker_and_says_its_reason_in_one_line(lab: Lab) -> None:
    daemon = lab.daemon("without", "--no-prewarm")

    here = lab.run("own_operator.py", "3", daemon=daemon)

    assert here.report["published"] == 1
    assert daemon.status()["workers"] == []
    assert "compiles_started" not in daemon.counters()
    (said,) = [line for line in here.err.splitlines() if "is compiled here (not_carried)" in line]
    assert "mine" in said
    assert "own_operator.py:" in said


def test_artifacts_name_no_place_of_the_machine_that_made_them(one_lab: Lab, daemon: Daemon) -> None:
    password = {"MY_TORCH_PASSWORD": "a-secret-of-the-trainers"}
    one_lab.run("perceptron.py", "18", daemon=daemon, **password)
    one_lab.run("own_operator.py", "2", daemon=daemon, **password)

    blobs = list(daemon.blobs())

    assert len(blobs) >= 4
    for place in [*one_lab.places(), *password.values()]:
        assert not [data for data in blobs if place.encode() in data], place


def test_every_way_of_asking_for_a_compile_reaches_the_daemon_and_off_means_off(one_lab: Lab, daemon: Daemon) -> None:
    rows = one_lab.run("entrances.py", daemon=daemon).result

    served = {name: row["compiled_by_daemon"] for name, row in rows.items()}
    assert served == {
        "plain": 1,
        "backend": 1,
        "backend_options": 1,
        "mode": 1,
        "options": 1,
        "off": 0,
        "on_again": 1,
    }
    assert rows["off"]["graphs"] == 0


@pytest.mark.slow
def test_a_graph_for_another_first_size_is_another_graph_and_the_same_size_is_served(
    one_lab: Lab, daemon: Daemon
) -> None:
    above = one_lab.run("guarded.py", "12", daemon=daemon)
    below = one_lab.run("guarded.py", "5", daemon=daemon)
    below_again = one_lab.run("guarded.py", "5", daemon=daemon)
    above_again = one_lab.run("guarded.py", "12", daemon=daemon)

    assert above.report["compiled_by_daemon"] == 1
    assert below.report["hits"] == 0, "the graph for more than ten rows was served to five"
    assert below.report["compiled_by_daemon"] == 1
    assert below_again.report["hits"] == above_again.report["hits"] == 1
    for outcome in (above, below, below_again, above_again):
        assert outcome.result["compiled"] == outcome.result["eager"]


@pytest.mark.slow
def test_a_number_that_torch_makes_a_constant_of_is_served_with_that_value_alone(one_lab: Lab, daemon: Daemon) -> None:
    cold = one_lab.run("constants.py", "0.25", daemon=daemon)
    warm = one_lab.run("constants.py", "0.25", daemon=daemon)
    other = one_lab.run("constants.py", "0.125", daemon=daemon)

    for outcome in (cold, warm, other):
        assert outcome.result == [True, True]
        assert outcome.report["compiled_here"] == 0
        assert outcome.report["refused"] == {}
    assert cold.report["compiled_by_daemon"] == 2
    assert (warm.report["hits"], warm.report["compiled_by_daemon"]) == (2, 0)
    assert other.report["hits"] == 0


def _copied_environment(place: Path) -> Path:
    """Make a virtual environment elsewhere whose packages are hard links to the same files; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True, timeout=120)
    source = Path(sysconfig.get_path("purelib"))
    target = place / source.relative_to(sys.prefix)
    shutil.rmtree(target)
    link = os.link if os.stat(source).st_dev == os.stat(place).st_dev else shutil.copy2
    shutil.copytree(source, target, symlinks=True, copy_function=link)
    python = place / "bin" / "python"
    shown = subprocess.run(
        [python, "-c", "import json, sys, torch; print(json.dumps([torch.__file__, sys.prefix]))"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=True,
        timeout=120,
    )
    torch_file, prefix = json.loads(shown.stdout)
    assert Path(torch_file).is_relative_to(place)
    assert prefix == str(place)
    return python


@pytest.mark.parametrize(("variable", "size"), [("", "83"), ("true", "89")])
def test_a_variable_that_torchs_configuration_reads_does_not_keep_a_graph_from_the_daemon(
    one_lab: Lab, daemon: Daemon, variable: str, size: str
) -> None:
    outcome = one_lab.run("wave.py", size, daemon=daemon, CI=variable)

    assert (outcome.report["compiled_by_daemon"], outcome.report["compiled_here"]) == (1, 0)
