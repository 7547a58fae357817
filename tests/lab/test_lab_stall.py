"""The stall bench on the smallest model with two rows; the tests check its counts and comparisons, and no times."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benches.stall.__main__ import complaints, figures

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 560.0


def said(**changes: Any) -> dict[str, Any]:
    steps = [{"resolution": 16 * (1 + n // 4), "loss": 1.0 - n / 100, "seconds": 1.0 + n} for n in range(8)]
    return {"steps": steps, "swapped": [1, 1], "first": {"trace_s": 0.5}, "cpp_builds": 0} | changes


def served(**changes: Any) -> dict[str, Any]:
    client = {"graphs": 2, "hits": 0, "compiled_by_daemon": 2, "compiled_here": 0, "fallbacks": {}}
    return said(client=client, daemon_compiles=2) | changes


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is short enough for a socket's name."""
    return tmp_path_factory.mktemp("s")


@pytest.mark.slow
def test_async_swaps_after_the_first_step_with_eager_losses_and_each_graph_is_compiled_once(short: Path) -> None:
    rows = ["daemon_async", "eager"]
    options = ["--rounds", "1", "--steps", "2", "--resolutions", "8,12", "--depth", "1"]

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "benches.stall",
            "--rows",
            ",".join(rows),
            *options,
            "--out",
            str(short / "stall.json"),
        ],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", "HOME": str(short), "TMPDIR": str(short)},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads((short / "stall.json").read_text())
    assert set(document["rows"]) == set(rows)
    assert document["rows"]["daemon_async"]["swap_step"] > 1
    assert document["goals"] == {"daemon_async/eager:first_step_s/new_step_s": 1.3}
    assert document["ratios"].keys() >= document["goals"].keys()


def test_losses_of_every_way_of_async_are_compared_with_eager_ones() -> None:
    results = {"eager": said(), "daemon_async_passive": served(swapped=[2, 2])}
    assert complaints(results) == []
    results["daemon_async_passive"]["steps"][5]["loss"] += 0.1
    assert len(complaints(results)) == 1


def test_figures_are_those_of_the_last_resolution_and_of_the_settled_one_before() -> None:
    found = figures(said(), 2)

    assert found["first_step_s"] == 5.0
    assert found["longest_pause_s"] == 8.0
    assert (found["waiting_step_s"], found["new_step_s"], found["steady_step_s"]) == (6.0, 7.5, 3.5)
    assert found["first_trace_s"] == 0.5


def test_a_round_in_order_has_no_complaints() -> None:
    results = {"torch": said(cpp_builds=9), "daemon_cold": served(), "daemon_async": served(swapped=[3, 2])}

    assert complaints(results) == []


def test_a_bit_less_in_a_compiled_loss_is_complained_of_and_more_than_rounding_in_an_eager_one() -> None:
    bit, far = copy.deepcopy(served()), copy.deepcopy(served(swapped=[2, 2]))
    bit["steps"][3]["loss"] += 1e-12
    far["steps"][3]["loss"] *= 1.01

    assert complaints({"torch": said(), "daemon_cold": bit}) == ["the losses of torch, daemon_cold differ"]
    assert ["has a loss of" in told for told in complaints({"eager": said(), "daemon_async": far})] == [True]


def test_a_swap_before_the_first_step_a_build_here_or_a_compile_too_many_is_complained_of() -> None:
    found = {
        "early": complaints({"daemon_async": served(swapped=[1, 3])}),
        "never": complaints({"daemon_async": served(swapped=[2, None])}),
        "built": complaints({"daemon_cold": served(cpp_builds=1)}),
        "twice": complaints({"daemon_cold": served(daemon_compiles=3)}),
        "again": complaints({"daemon_warm": served()}),
    }

    assert all(found.values()), found
