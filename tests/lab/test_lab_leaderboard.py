"""The leaderboard's rows are what finished runs say, the failing ones too; a dry run says what a run would need."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benches.harness import lab_cli as cli
from benches.multires import __main__ as multires
from benches.multires.estimate import estimate, kept_bytes
from benches.multires.leaderboard import committed, page, rows_of
from benches.multires.presets import preset
from diffusion.backbone import BackboneConfig, HybridDiT
from diffusion.errors import RunFolderError
from diffusion.metrics.registry import METRICS

REPOSITORY = Path(__file__).parents[2]


def write(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def finished(folder, worst, *, metrics=tuple(m.name for m in METRICS)):
    """Write a run of two modes and two looks; `worst` is (mode, step) -> z of one metric, all others are 1."""
    folder.mkdir()
    scores = [
        {"mode": mode, "seed": 0, "step": step, "resolution": 16, "metric": name, "z": z if name == metrics[1] else 1.0}
        for (mode, step), z in worst.items()
        for name in metrics
    ]
    losses = [
        {"mode": mode, "seed": 0, "step": step, "seconds": 9.0, "cpu_seconds": 2.0}
        for mode in dict.fromkeys(mode for mode, _ in worst)
        for step in range(20)
    ]
    write(folder / "scores.csv", scores)
    write(folder / "losses.csv", losses)
    config = {
        "buckets": {"resolutions": [16, 64]},
        "backbone": {"kind": "BackboneConfig"},
        "target": "x0",
        "train": {"steps": 20},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "report.md").write_text("# multires\n\nCommand: `python -m benches.multires --preset x`  \n")
    return folder


def test_a_row_says_when_the_goal_was_reached_or_the_best_that_was_and_failing_rows_stay(tmp_path):
    worst = {("good", 10): 2.5, ("good", 20): 2.0, ("bad", 10): 40.0, ("bad", 20): -55.0}

    text = page(rows_of(finished(tmp_path / "run", worst)))

    lines = [line for line in text.splitlines() if line.startswith("| HybridDiT")]
    assert lines[0].startswith("| HybridDiT says x0, good, 20 steps, 1 seed | **20 s** | not measured |")
    assert f"z 40 ({METRICS[1].name}), overall " in lines[1]
    assert " after 20 s" in lines[1]
    assert all("`python -m benches.multires --preset x`" in line for line in lines)


def test_a_run_that_lacks_metrics_of_today_is_called_older_than_the_code(tmp_path):
    names = tuple(m.name for m in METRICS if m.name != "fd_palette")

    old = rows_of(finished(tmp_path / "old", {("a", 10): 5.0}, metrics=names))
    new = rows_of(finished(tmp_path / "new", {("a", 10): 5.0}))

    assert old[0].notes == "older than the code, as is its command: without fd_palette"
    assert new[0].notes == ""


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no finished run"):
        rows_of(tmp_path)


def test_the_committed_page_is_that_of_the_committed_runs():
    text = (REPOSITORY / "docs" / "leaderboard.md").read_text(encoding="utf-8")

    folders = committed(REPOSITORY / "benches" / "results")
    assert page([row for folder in folders for row in rows_of(folder)]) == text


def test_a_dry_run_for_a_gpu_says_what_it_needs_and_that_nothing_was_measured(monkeypatch, capsys):
    small = replace(preset("gpu"), backbone=BackboneConfig(width=32, depth=2, heads=2))
    monkeypatch.setattr(multires, "preset", lambda _: small)
    monkeypatch.setattr(sys, "argv", ["multires", "--preset", "gpu", "--dry-run"])

    with pytest.raises(SystemExit):
        cli.run(multires.BENCH)

    said = capsys.readouterr()
    assert json.loads(said.out)["preset"] == "gpu"
    assert "GiB a step" in said.err
    assert "h at an assumed" in said.err
    assert "nothing was measured" in said.err


def test_an_estimate_grows_with_the_run_and_half_precision_halves_what_is_kept():
    gpu = replace(preset("gpu"), backbone=BackboneConfig(width=32, depth=2, heads=2))
    longer = replace(gpu, train=replace(gpu.train, steps=2 * gpu.train.steps))
    precise = replace(gpu, train=replace(gpu.train, mixed_precision=False))

    assert estimate(longer).operations == pytest.approx(2 * estimate(gpu).operations)
    assert estimate(precise).step_bytes == pytest.approx(2 * estimate(gpu).step_bytes, rel=1e-6)
    assert estimate(replace(gpu, device="cpu")).hours is None


def test_what_autograd_keeps_is_at_least_every_blocks_input():
    config = BackboneConfig(width=32, depth=4, heads=2)
    tokens = 64

    kept = kept_bytes(HybridDiT(config), 16)

    assert kept > config.depth * tokens * config.width * 4 * 3
    assert kept < 2**24
