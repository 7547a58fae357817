"""Graphs with the user's own Triton kernels: the trainer compiles and publishes them, and the daemon serves them whole.

The kernels run on the host, by a backend for Triton that the tests bring along (tests/kernels/host_backend).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import REPOSITORY, TRAINERS, Daemon, Lab
from tests.e2e.test_e2e_explain import asked
from tests.kernels.conftest import needs_triton

pytestmark = [needs_triton, pytest.mark.timeout(900)]

KERNELS = {
    "plain": ["scaled_sum"],
    "operator": ["scaled_sum"],
    "backward": ["swish", "swish_backward"],
    "tuned": ["tuned_square", "tuned_square"],
}
FILES_OF_A_KERNEL = 5  # the binary, two stages, Triton's JSON, and Triton's list of these files


def host(log: Path) -> dict[str, str]:
    """Return the variables that give Triton a target `cpu`; all processes that a trainer starts write to the log."""
    path = [REPOSITORY, REPOSITORY / "proto", REPOSITORY / "tests" / "kernels" / "host_backend"]
    return {"PYTHONPATH": os.pathsep.join(map(str, path)), "HOST_KERNELS_LOG": str(log)}


def done(outcome: Any, what: str, *, loaded: int | None = None) -> list[str]:
    """Check that every kernel was loaded and the result is right; return the kernels that Triton compiled."""
    lines, names = outcome.result["kernels"], KERNELS[what][:loaded]
    assert [line for line in lines if line.startswith("loaded")] == [f"loaded {name}" for name in names]
    assert outcome.result["off"] < 1e-5
    return [line.removeprefix("compiled ") for line in lines if line.startswith("compiled")]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["plain", "operator", "backward"])
def test_a_kernel_in_a_graph_is_compiled_by_the_first_trainer_and_by_nobody_else(
    one_lab: Lab, daemon: Daemon, tmp_path: Path, what: str
) -> None:
    alone = one_lab.start("own_kernel.py", "900", what, bare=True, **host(tmp_path / "alone"))
    first = one_lab.run("own_kernel.py", "900", what, daemon=daemon, bare=True, **host(tmp_path / "first"))
    daemon.wait_for_workers()
    second = one_lab.run("own_kernel.py", "900", what, daemon=daemon, bare=True, **host(tmp_path / "second"))
    by_itself = alone.wait()
    kernels = len(KERNELS[what])

    assert done(by_itself, what) == done(first, what) == KERNELS[what]
    assert first.report["compiled_here"] == first.report["published"] == 1
    assert first.report["refused"] == {"not_carried": 1}
    assert first.report["triton_compiles"] == first.report["kernels_here"] == kernels
    assert first.report["kernels_refused"] == {"not_carried": kernels}
    assert first.result["saved"] == kernels * FILES_OF_A_KERNEL

    assert done(second, what) == []
    assert (second.report["hits"], second.report["compiled_here"]) == (1, 0)
    assert second.report["cpp_builds"] == second.report["triton_compiles"] == second.report["kernels"] == 0
    assert second.report["refused"] == second.report["kernels_refused"] == {}
    assert second.result["restored"] == kernels * FILES_OF_A_KERNEL
    assert second.result["numbers"] == first.result["numbers"] == by_itself.result["numbers"]


def test_what_is_published_of_a_kernel_names_no_place_of_the_machine_that_made_it(lab: Lab, tmp_path: Path) -> None:
    daemon = lab.daemon()

    lab.run("own_kernel.py", "905", "backward", daemon=daemon, **host(tmp_path / "log"))
    blobs = list(daemon.blobs())

    (entry,) = [data for data in blobs if b"def swish_backward(" in data]
    assert b"# Original path: own_kernel.py:" in entry
    assert b'/standard.py":' in entry  # the path of Triton's own function
    for place in [*lab.places(), str(tmp_path)]:
        assert not [data for data in blobs if place.encode() in data], place


def test_why_a_graph_with_a_kernel_is_compiled_here_is_said_once_for_the_graph_and_once_for_the_kernel(
    one_lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    outcome = one_lab.run(
        "own_kernel.py", "910", "plain", daemon=daemon, TORCH_COMPILE_CLIENT_EXPLAIN="1", **host(tmp_path / "log")
    )

    assert "1 compiled here (not_carried 1), 1 published; 1 kernel: " in outcome.err
    graph, kernel = asked(daemon, "explain", "--program", "own_kernel.py")["graphs"]
    assert (graph["kind"], graph["reason"]) == ("graph", "not_carried")
    assert "triton_kernel_wrapper_mutation" in graph["message"]
    assert "own_kernel.py" in graph["message"]
    assert (kernel["kind"], kernel["reason"]) == ("kernel", "not_carried")
    assert kernel["message"] == "kernel scaled_sum: its target cpu names no architecture"


@pytest.mark.parametrize(
    ("what", "size", "old", "new"),
    [
        pytest.param("plain", "920", "x * 3.0 + y", "x * 4.0 + y", marks=pytest.mark.slow),
        pytest.param("operator", "930", "x * 3.0 + y", "x * 4.0 + y", marks=pytest.mark.slow),
        ("operator", "940", "out * 1.0", "out * 2.0"),
        pytest.param("backward", "950", "grad * rate * (1.0 +", "grad * rate * (2.0 +", marks=pytest.mark.slow),
    ],
)
def test_an_edit_of_what_is_compiled_into_the_graph_is_another_graph(
    one_lab: Lab, daemon: Daemon, tmp_path: Path, what: str, size: str, old: str, new: str
) -> None:
    source = (TRAINERS / "own_kernel.py").read_text()
    assert source.count(old) == 1
    edited = tmp_path / "own_kernel.py"
    edited.write_text(source.replace(old, new))

    before = one_lab.run("own_kernel.py", size, what, daemon=daemon, **host(tmp_path / "before"))
    after = one_lab.run(str(edited), size, what, daemon=daemon, **host(tmp_path / "after"))

    assert before.result["off"] < 1e-5
    assert after.result["off"] > 0.1  # the edit shows in the numbers
    assert (after.report["hits"], after.report["compiled_here"]) == (0, 1)


@pytest.mark.slow
def test_the_candidates_of_an_autotuned_kernel_in_a_graph_are_compiled_and_timed_once(
    one_lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    first = one_lab.run("own_kernel.py", "960", "tuned", daemon=daemon, **host(tmp_path / "first"))
    second = one_lab.run("own_kernel.py", "960", "tuned", daemon=daemon, **host(tmp_path / "second"))

    assert (done(first, "tuned"), done(second, "tuned", loaded=1)) == (KERNELS["tuned"], [])  # the winner only
    assert (first.result["timed"], second.result["timed"]) == (2, 0)
    assert (first.report["tunings"], first.report["tuning_hits"]) == (1, 0)
    assert (second.report["tunings"], second.report["tuning_hits"]) == (1, 1)
    assert second.report["hits"] == 1
    assert second.result["numbers"] == first.result["numbers"]


@pytest.mark.slow
def test_kernels_that_torch_compiles_in_processes_of_its_own_are_published_with_the_graph(
    one_lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    first = one_lab.run("own_kernel.py", "970", "plain", "pool", daemon=daemon, **host(tmp_path / "first"))
    second = one_lab.run("own_kernel.py", "970", "plain", daemon=daemon, **host(tmp_path / "second"))

    assert first.report["triton_compiles"] == 0  # else no other process has compiled it, and the test shows nothing
    assert (done(first, "plain"), done(second, "plain")) == (["scaled_sum"], [])
    assert second.result["numbers"] == first.result["numbers"]


@pytest.mark.slow
def test_an_artifact_without_its_kernels_is_used_and_they_are_compiled_here(
    one_lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    apart = {"TORCHINDUCTOR_BUNDLE_TRITON_INTO_FX_GRAPH_CACHE": "0"}
    first = one_lab.run("own_kernel.py", "980", "plain", daemon=daemon, **host(tmp_path / "first"), **apart)
    second = one_lab.run("own_kernel.py", "980", "plain", daemon=daemon, **host(tmp_path / "second"), **apart)

    assert first.result["saved"] == second.result["restored"] == 0
    assert (second.report["hits"], second.report["kernels_here"]) == (1, 1)
    assert done(second, "plain") == ["scaled_sum"]
    assert second.result["numbers"] == first.result["numbers"]


def test_a_kernel_of_which_a_file_is_gone_is_compiled_again_beside_a_graph_that_is_there(
    one_lab: Lab, daemon: Daemon, tmp_path: Path
) -> None:
    caches = tmp_path / "caches"
    first = one_lab.run("own_kernel.py", "990", "plain", daemon=daemon, caches=caches, **host(tmp_path / "first"))
    (binary,) = (caches / "triton").rglob("*.hostbin")
    binary.unlink()

    second = one_lab.run("own_kernel.py", "990", "plain", daemon=daemon, caches=caches, **host(tmp_path / "second"))

    assert (second.report["hits_local"], second.report["kernels_here"]) == (1, 1)
    assert done(second, "plain") == ["scaled_sum"]
    assert second.result["numbers"] == first.result["numbers"]
