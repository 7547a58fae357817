"""The GPU check on a machine without a GPU: its refusals, its verdicts, and a rehearsal of its steps on the CPU."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benches.gpu.verdicts import kernel_checks, mode_checks, reduce_overhead_check

REPOSITORY = Path(__file__).parents[2]
SCRIPT = str(REPOSITORY / "benches" / "gpu_check.sh")
LIMIT_S = 560.0

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="there is no triton here")


def run(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "PYTHON": sys.executable,
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "proto")]),
            "OUT": str(folder / "out"),
        }
        | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path is short enough for a socket's name."""
    return tmp_path_factory.mktemp("s")


def served(**changes: Any) -> dict[str, Any]:
    client = {"graphs": 2, "hits": 2, "compiled_by_daemon": 0, "refused": {}, "fallbacks": {}}
    nothing = {"triton_compiles": 0, "autotunes": 0, "cpp_builds": 0}
    return {"losses": [1.0, 0.5], "client": client | changes.pop("client", {}), **nothing, **changes}


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_device_it_is_one_sentence_and_exit_code_two(short: Path) -> None:
    done = run(SCRIPT, folder=short)

    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "there is no CUDA device: nothing is measured" in done.stderr
    assert not (short / "out").exists()


def test_packages_that_are_missing_are_named_with_the_way_to_bring_them(short: Path) -> None:
    bare = short / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o700)

    done = run(SCRIPT, folder=short, PYTHON=str(bare))
    nobody = run(SCRIPT, folder=short, PYTHON=str(short / "nobody"))

    assert done.returncode == nobody.returncode == 2
    assert "lacks torch grpcio grpcio-health-checking protobuf msgpack psutil rich typer triton" in done.stderr
    assert "--dest wheels" in done.stderr
    assert "set PYTHON" in nobody.stderr


@pytest.mark.slow
@needs_triton
def test_the_steps_are_rehearsed_on_a_cpu_and_called_a_rehearsal(short: Path) -> None:
    rows = ["daemon_cold@default", "daemon_warm_counted@default", "kernels_first"]
    options = ["--device", "cpu", "--resolutions", "8", "--depth", "1", "--steps", "2", "--rows", ",".join(rows)]

    done = run(SCRIPT, *options, folder=short)

    assert done.returncode == 0, done.stderr[-3000:]
    document = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads((short / "out" / "gpu_check.json").read_text())
    assert document["rehearsal"] is True
    assert "rehearsal" in document["device"]
    assert set(document["rows"]) == set(rows)
    assert [check["ok"] for check in document["checks"]] == [True] * 4
    assert document["left_out"] == []


def test_rows_for_which_there_is_no_time_are_named(short: Path) -> None:
    done = run(
        *(sys.executable, "-m", "benches.gpu_check", "--device", "cpu", "--budget", "0", "--rows", "eager"),
        folder=short,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["left_out"] == ["eager"]


@needs_triton
def test_a_kernel_that_computes_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from benches.gpu import kernels as gpu_kernels

    def launch(_grid: tuple[int, ...], x: torch.Tensor, y: torch.Tensor, out: torch.Tensor, _n: int) -> None:
        out.copy_(x + y)
        out[-1] += 1e-3

    found = gpu_kernels._complaints("vector_add", gpu_kernels.comparisons("vector_add", launch, "cpu"))

    assert [complaint.partition(":")[0] for complaint in found] == ["vector_add, output 0"]


def test_every_kernel_of_the_corpus_has_a_comparison() -> None:
    pytest.importorskip("triton")
    from benches.gpu.kernels import _CASES
    from benches.kernels.corpus import corpus

    assert set(_CASES) == {specimen.name for specimen in corpus()}


def test_a_mode_in_order_passes_every_check() -> None:
    torch_rows = {"torch_cold": {"losses": [1.0, 0.5]}, "torch_local_warm": {"losses": [1.0, 0.5]}}
    rows = {**torch_rows, "daemon_cold": served(), "daemon_warm_empty": served(), "daemon_warm_counted": served()}

    found = mode_checks("default", rows)

    assert len(found) == 6
    assert [check for check in found if not check.ok] == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"losses": [1.0, 0.5000001]}, "bit for bit"),
        ({"triton_compiles": 1}, "nothing is compiled or timed"),
        ({"autotunes": 1}, "nothing is compiled or timed"),
        ({"client": {"hits": 1}}, "everything is a hit"),
        ({"client": {"fallbacks": {"late": 1}}}, "everything is a hit"),
    ],
    ids=["a bit of a loss", "a compile", "a timing", "a miss", "trouble"],
)
def test_whatever_is_not_as_promised_fails_one_check(changed: dict[str, Any], words: str) -> None:
    found = mode_checks("default", {"daemon_cold": served(), "daemon_warm_counted": served(**changed)})

    assert [words in check.name for check in found if not check.ok] == [True]


def test_bits_are_not_judged_where_torch_itself_does_not_repeat_them() -> None:
    rows = {
        "torch_cold": {"losses": [1.0, 0.5]},
        "torch_local_warm": {"losses": [1.0, 0.5001]},
        "daemon_cold": served(),
        "daemon_warm_empty": served(losses=[1.0, 0.5002]),
    }

    first = mode_checks("default", rows)[0]

    assert first.ok
    assert "not judged" in first.said


def test_cuda_graphs_work_or_are_refused_with_a_reason_and_nothing_else_passes() -> None:
    def verdict(**client: Any) -> bool:
        (check,) = reduce_overhead_check({"torch_cold": {"losses": [1.0, 0.5]}, "daemon_cold": served(client=client)})
        return check.ok

    assert verdict()
    assert verdict(hits=0, refused={"unsupported": 2})
    assert not verdict(hits=0)
    assert not verdict(fallbacks={"internal": 1})


def test_kernels_are_judged_by_their_numbers_and_the_second_run_by_its_counts() -> None:
    good = {"wrong": [], "compiles": 0, "autotunes": 0, "client": {}}

    assert all(check.ok for check in kernel_checks([{**good, "compiles": 16}, good], "cuda"))
    assert [check.ok for check in kernel_checks([good, {**good, "autotunes": 1}], "cuda")] == [True, True, False]
    assert [check.ok for check in kernel_checks([{**good, "wrong": ["matmul"]}], "cpu")] == [False]
