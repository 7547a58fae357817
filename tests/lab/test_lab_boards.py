"""The recipe for boards at all resolutions: what it is, and that a short run of it goes through a daemon."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benches.harness.daemon import ServedDaemon, clean_environment
from benches.multires.presets import preset
from diffusion.parametrization import Target
from diffusion.weights import loss_at

REPOSITORY = Path(__file__).parents[2]
LIMIT_S = 280.0

SHORT = (
    "--preset cpu-long --steps 6 --seeds 1 --set backbone.depth=1 --set backbone.width=32 --set backbone.heads=2 "
    "--set evaluation.times=1 --set evaluation.images=8 --set evaluation.fitted=2 --set evaluation.drawn=2 "
    "--set evaluation.nulls=2 --set evaluation.max_resolution=16 --set evaluation.validation_bins=2 "
    "--set evaluation.validation_tokens=512 --set evaluation.drawing.steps=2"
).split()


def test_geometry_is_learned_in_x0_before_the_error_of_v_counts_and_sizes_are_visited_alike():
    config = preset("cpu-long")
    steps = config.train.steps

    losses = [loss_at(config.phases, step, steps) for step in (0, steps // 2, steps * 7 // 10, steps - 1)]

    assert [(loss.loss_in, loss.cap) for loss in losses[2:]] == [(Target.V, 4.0)] * 2
    assert [loss.loss_in for loss in losses[:2]] == [Target.X0, Target.X0]
    assert config.buckets.visits is None
    assert config.train.compile


@pytest.fixture
def short(tmp_path_factory):
    """A folder whose path is short enough for a socket's name."""
    return tmp_path_factory.mktemp("s")


def trained(folder, daemon, name):
    """Run the recipe in a process of its own with empty caches; return its document and its client's report."""
    home = folder / name
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "benches.multires", *SHORT, "--out", str(home / "runs")],
        cwd=REPOSITORY,
        env=clean_environment()
        | {
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "proto")]),
            "TMPDIR": str(home),
            "TORCHINDUCTOR_CACHE_DIR": str(home / "cache"),
            "TORCH_COMPILE_CLIENT": "1",
            "TORCH_COMPILE_CLIENT_REPORT": str(home / "report.json"),
            "COMPILER_DAEMON_DIR": str(daemon.directory),
            "COMPILER_DAEMON_ADDRESS": daemon.address,
        },
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), json.loads((home / "report.json").read_text())


@pytest.mark.slow
def test_the_recipe_starts_and_the_daemon_compiles_each_of_its_graphs_once_for_all(short):
    daemon = ServedDaemon(short, "--workers", "1")
    daemon.start()
    try:
        first, its_client = trained(short, daemon, "first")
        second, other_client = trained(short, daemon, "second")
    finally:
        daemon.stop()

    assert first["steps"] == second["steps"] == 6
    assert first["losses"] == second["losses"]
    assert (first["graph_breaks"], second["cpp_builds"]) == (0, 0)
    assert its_client["compiled_by_daemon"] == other_client["hits"] == its_client["graphs"] >= 3
    assert its_client["compiled_here"] == other_client["compiled_here"] == 0
    report = (short / "second" / "runs" / "multires" / "000" / "report.md").read_text()
    assert "| naive, 64 px |" in report
    assert "perfect denoiser" in report
