"""Kernels outlive the process that needed them: they are warmed for the next, exported, and compiled again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benches.harness.daemon import ServedDaemon, clean_environment
from tests.kernels.conftest import REPOSITORY, TRAINERS, Bench, needs_triton

pytestmark = needs_triton


def verb(daemon: ServedDaemon, name: str, *arguments: str, code: int = 0) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", name, "--json", "--dir", str(daemon.directory), *arguments],
        capture_output=True,
        text=True,
        env=clean_environment()
        | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "proto")]), "SIZES": "2000"},
        timeout=300,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def test_after_warm_a_process_with_empty_caches_compiles_no_kernel_and_times_none(bench: Bench) -> None:
    daemon = bench.daemon()

    document = verb(daemon, "warm", "--", sys.executable, str(TRAINERS / "tuned.py"))
    warmed = verb(daemon, "ls")["artifacts"]
    later = bench.run(script="tuned.py", daemon=daemon, SIZES="2000")

    assert document["failed"] == 0
    assert sorted(row["kind"] for row in warmed) == ["kernel", "kernel", "kernel", "tuning"]
    assert later.result == {"timed": 0, "best": 128, "compiles": 0, "ready": []}
    assert (later.report["tuning_hits"], later.report["kernel_hits"], later.report["kernels_here"]) == (1, 1, 0)


def test_kernels_whose_artifacts_have_gone_are_compiled_again_from_what_is_kept(bench: Bench) -> None:
    daemon = bench.daemon()
    first = bench.run("cuda:90", "vector_add", "softmax", daemon=daemon)
    verb(daemon, "rm", "--yes", *(row["id"] for row in verb(daemon, "ls", "--kind", "kernel")["artifacts"]))

    replayed = verb(daemon, "replay", "--all")
    again = verb(daemon, "replay", "--all")
    later = bench.run("cuda:90", "vector_add", "softmax", daemon=daemon)

    assert (replayed["graphs"], replayed["compiled"], replayed["serves"]) == (2, 2, {"same": 2})
    assert again["compiled"] == 0
    assert {row["origin"] for row in verb(daemon, "ls")["artifacts"]} == {"replay"}
    assert (later.report["kernel_hits"], later.result["compiles"]) == (2, 0)
    assert later.result["files"] == first.result["files"]


@pytest.mark.slow
def test_an_export_takes_kernels_along_and_a_file_of_graphs_proves_no_kernel(bench: Bench, tmp_path: Path) -> None:
    here, there = bench.daemon(), bench.daemon()
    first = bench.run("cuda:90", "vector_add", daemon=here)
    secret = str(here.directory / "secret")
    artifacts, graphs = tmp_path / "artifacts", tmp_path / "graphs"
    verb(here, "export", str(artifacts))
    verb(here, "export", "--graphs", str(graphs))

    unproven = verb(there, "replay", str(graphs), code=1)
    none = verb(there, "ls")["artifacts"]
    verb(there, "import", "--secret-file", secret, str(artifacts))
    later = bench.run("cuda:90", "vector_add", daemon=there)

    assert unproven["refused"] == 1
    assert none == []
    assert (later.report["kernel_hits"], later.result["compiles"]) == (1, 0)
    assert later.result["files"] == first.result["files"]
