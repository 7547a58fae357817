import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from benches.backbones import __main__ as backbones
from benches.backbones import cells as backbone_cells
from benches.gradients import __main__ as gradients
from benches.harness import lab_cli as cli
from benches.harness import markdown
from benches.harness.run_folder import RunFolder
from benches.multires import __main__ as multires
from benches.multires.presets import evaluation_steps
from benches.multires.presets import preset as multires_preset
from diffusion.attention import AttentionBackend
from diffusion.backbone import BackboneConfig, HybridDiT
from diffusion.errors import RunFolderError
from diffusion.flops import forward_flops
from diffusion.sampling import Drawing

BENCHES = {"multires": multires.BENCH, "gradients": gradients.BENCH, "backbones": backbones.BENCH}


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a bench's command line in this process; return its exit code, and the lines of its stdout and stderr."""

    def call(bench, *arguments):
        monkeypatch.setattr(sys, "argv", [bench, *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.run(BENCHES[bench])
        captured = capsys.readouterr()
        return stopped.value.code or 0, captured.out.splitlines(), captured.err

    return call


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


SMALL = {
    "multires": ("--preset", "cpu", "--resolutions", "8,12", "--steps", 4, "--mode", "both", "--no-compile"),
    "gradients": ("--preset", "demo", "--resolutions", "8,12", "--steps", 3),
    "backbones": ("--preset", "demo", "--resolutions", "8", "--steps", 2, "--seeds", 2),
}
WRITTEN = {
    "multires": {"losses.csv", "validation.csv", "scores.csv", "losses.png", "validation.png", "ground_truth.png"},
    "gradients": {"gradients.csv", "scaling.csv", "cosines.png", "loss_mean.png", "signal_share.png"},
    "backbones": {"cells.csv", "summary.csv", "excess.png"},
}


@pytest.mark.parametrize("bench", list(BENCHES))
def test_a_bench_writes_its_folder_and_ends_with_one_json_document(bench, run, tmp_path, monkeypatch):
    monkeypatch.setattr(multires, "preset", quick)
    code, out, err = run(bench, *SMALL[bench], "--out", tmp_path, "--seed", 3)

    assert code == 0, err
    document = json.loads(out[-1])
    folder = tmp_path / bench / "000"
    assert document["bench"] == bench
    assert document["out"] == str(folder)
    assert document["seed"] == 3
    assert document["seconds"] > 0
    assert set(files(folder)) >= {"config.json", "stats.jsonl", "report.md"} | (WRITTEN[bench] - {"summary.csv"})
    assert json.loads((folder / "config.json").read_text())["preset"] == SMALL[bench][1]
    report = (folder / "report.md").read_text()
    assert ("| perfect denoiser |" in report) is (bench == "multires")
    assert all((folder / name).exists() for name in WRITTEN[bench] if f"({name})" in report)


def test_the_demo_reports_every_loss_and_does_not_compile_when_told_not_to(run, tmp_path):
    arguments = ("--preset", "demo", "--resolutions", "8,16", "--steps", 5, "--no-compile", "--out", tmp_path)

    code, out, _ = run("multires", *arguments)
    _, again, _ = run("multires", *arguments)
    _, other, _ = run("multires", *arguments, "--seed", 1)

    documents = [json.loads(lines[-1]) for lines in (out, again, other)]
    assert code == 0
    assert len(out) == 1
    assert documents[0]["steps"] == len(documents[0]["losses"]) == 5
    assert documents[0]["losses"] == documents[1]["losses"] != documents[2]["losses"]
    assert [d["out"] for d in documents] == [str(tmp_path / "multires" / f"{i:03d}") for i in range(3)]
    with (tmp_path / "multires" / "000" / "stats.jsonl").open() as log:
        assert [json.loads(line)["loss"] for line in log] == documents[0]["losses"]


BAD = {
    "unknown preset": (("--preset", "huge"), "unknown preset 'huge'"),
    "negative side": (("--resolutions", "16,-16"), "must be positive"),
    "odd side": (("--resolutions", "17"), "not a positive multiple of 2"),
    "no number": (("--resolutions", "large"), "must be integers"),
    "negative steps": (("--steps", "-1"), "must be positive"),
    "unknown mode": (("--mode", "magic"), "unknown mode 'magic'"),
    "unknown device": (("--device", "abacus"), "unknown device"),
    "absent device": (("--device", "cuda:99"), "cuda"),
    "no such run": (("--resume", "nowhere"), "not a run folder"),
}


@pytest.mark.parametrize("bench", list(BENCHES))
@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_gets_one_sentence_and_exit_code_two_and_leaves_nothing_behind(bench, case, run, tmp_path):
    arguments, sentence = BAD[case]

    code, out, err = run(bench, *arguments, "--out", tmp_path / "runs")

    assert code == 2
    assert out == []
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sentence in err
    assert not (tmp_path / "runs").exists()


def test_an_unknown_target_is_refused(run, tmp_path):
    code, _, err = run("multires", "--target", "w", "--out", tmp_path)

    assert (code, err) == (2, "error: unknown target 'w'; there are x0, epsilon, v\n")


@pytest.mark.parametrize("bench", list(BENCHES))
def test_a_folder_that_cannot_be_written_is_refused(bench, run, tmp_path):
    (tmp_path / "file").write_text("mine")

    code, _, err = run(bench, *SMALL[bench], "--out", tmp_path / "file")

    assert code == 2
    assert "cannot write a run folder" in err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("bench", list(BENCHES))
def test_resuming_with_another_configuration_is_refused_and_changes_nothing(bench, run, tmp_path):
    config = run(bench, *SMALL[bench], "--dry-run")[1][-1]
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "stats.jsonl").write_text('{"kind": "step"}\n')
    before = files(folder)

    code, _, err = run(bench, *SMALL[bench], "--seed", 5, "--resume", folder)

    assert code == 2
    assert "another configuration" in err
    assert files(folder) == before


@pytest.mark.parametrize("bench", list(BENCHES))
def test_a_dry_run_prints_the_configuration_and_makes_nothing(bench, run, tmp_path):
    code, out, _ = run(bench, "--preset", "gpu", "--seed", 11, "--dry-run", "--out", tmp_path / "runs")

    assert code == 0
    assert json.loads(out[-1])["device"] == "cuda"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("bench", list(BENCHES))
def test_help_names_every_option(bench, run):
    code, out, _ = run(bench, "--help")

    text = "\n".join(out)
    options = ("--preset", "--resolutions", "--steps", "--seed", "--mode", "--device", "--out", "--dry-run")
    assert code == 0
    assert [option for option in (*options, "--no-compile", "--resume", "--tensorboard") if option not in text] == []


def test_a_run_that_was_cut_short_resumes_to_the_losses_of_an_uninterrupted_one(run, tmp_path, monkeypatch):
    arguments = ("--preset", "cpu", "--resolutions", "8,12", "--steps", 6, "--mode", "naive", "--no-compile")
    monkeypatch.setattr(multires, "preset", with_checkpoints)
    whole = json.loads(run("multires", *arguments, "--out", tmp_path / "whole")[1][-1])
    cut = tmp_path / "whole" / "multires" / "000"
    # The machine seems to have died during step 5: the log knows more than the checkpoint of step 4.
    lines = [json.loads(line) for line in (cut / "stats.jsonl").read_text().splitlines()]
    kept = [r for r in lines if r["kind"] == "step" and r["step"] <= 4]
    (cut / "stats.jsonl").write_text("".join(json.dumps(r) + "\n" for r in kept) + '{"kind": "st')

    code, out, err = run("multires", *arguments, "--resume", cut)

    assert code == 0, err
    assert "continues at step 4" in err
    assert json.loads(out[-1])["losses"] == whole["losses"]


@pytest.mark.parametrize("kept", [False, True], ids=["no checkpoints written", "checkpoint lost"])
def test_a_run_without_its_checkpoint_is_not_silently_started_again(kept, run, tmp_path, monkeypatch):
    arguments = ("--preset", "cpu", "--resolutions", "8", "--steps", 4, "--mode", "naive", "--no-compile")
    monkeypatch.setattr(multires, "preset", with_checkpoints if kept else quick)
    run("multires", *arguments, "--out", tmp_path)
    folder = tmp_path / "multires" / "000"
    (folder / "naive-0.pt").unlink(missing_ok=True)
    before = files(folder)

    code, _, err = run("multires", *arguments, "--resume", folder)

    assert code == 2
    assert "no checkpoint" in err.splitlines()[-1]
    assert files(folder) == before


def test_a_grid_in_two_modes_has_every_variant_in_both():
    options = cli.LabOptions(preset="demo", mode="both")

    config = backbones.configured(options)

    modes = [(v.name, backbone_cells.varied(config.base, v).mode.value) for v in config.variants]
    assert modes[0] == ("base, naive", "naive")
    assert [mode for _, mode in modes] == ["naive"] * 3 + ["factorized"] * 3
    assert len({name for name, _ in modes}) == 6


class OnCuda(HybridDiT):
    """A backbone that gives the layouts of a CUDA device on a CPU, too."""

    def layout(self, resolution, *, backend=AttentionBackend.AUTO, **where):
        flex = AttentionBackend.FLEX if backend is AttentionBackend.AUTO else backend
        return super().layout(resolution, backend=flex, **where)


def test_operations_are_counted_where_attention_would_be_flex():
    config = BackboneConfig(width=16, depth=2, heads=2, hidden=24, global_every=2)

    assert OnCuda(config).layout(16).nearby.blocks is not None
    assert backbone_cells.counted_flops(OnCuda(config), 16, "cpu") == forward_flops(config, 16).dense


def quick(name):
    """Return the preset with a small model, few draws and sampling steps: it writes every file and learns nothing."""
    config = multires_preset(name)
    evaluation = replace(config.evaluation, images=16, nulls=3, drawing=Drawing(steps=2), validation_tokens=512)
    backbone = replace(config.backbone, width=32, depth=2, heads=2, hidden=64)
    buckets = replace(config.buckets, tokens_per_step=512)
    return replace(config, backbone=backbone, buckets=buckets, evaluation=evaluation)


def with_checkpoints(name):
    config = quick(name)
    # A number that divides no step but 4 keeps the last checkpoint before the end.
    return replace(config, checkpoint_every=4, evaluation=replace(config.evaluation, times=1))


def test_two_runs_started_at_once_get_two_folders(tmp_path):
    first = RunFolder.create(tmp_path, "bench", {"a": 1})
    second = RunFolder.create(tmp_path, "bench", {"a": 1})
    with first, second:
        assert (first.path.name, second.path.name) == ("000", "001")


def test_a_folder_without_a_configuration_is_no_run(tmp_path):
    with pytest.raises(RunFolderError, match="not a run folder"):
        RunFolder.reopen(tmp_path, {"a": 1})


def test_tensorboard_events_are_written_on_request(run, tmp_path):
    arguments = ("--preset", "demo", "--resolutions", "8", "--steps", 2, "--no-compile", "--out", tmp_path)

    code, _, err = run("multires", *arguments, "--tensorboard")

    assert code == 0, err
    (events,) = (tmp_path / "multires" / "000" / "tensorboard").iterdir()
    assert b"grad_norm" in events.read_bytes()


def test_csv_holds_the_records(tmp_path):
    with RunFolder.create(tmp_path, "bench", {}) as folder:
        path = folder.write_csv("rows.csv", [{"a": 1, "b": 0.1}, {"a": 2, "b": 0.25}])

    with path.open() as file:
        assert [row["b"] for row in csv.DictReader(file)] == ["0.1", "0.25"]


def test_evaluations_are_evenly_spaced_and_the_last_is_at_the_end():
    assert evaluation_steps(100, 4) == (25, 50, 75, 100)
    assert evaluation_steps(2, 4) == (1, 2)


ONE_LAYER = """
from dataclasses import replace

from benches.harness import lab_cli
from benches.multires import __main__ as multires

demo = multires.preset("demo")
multires.preset = lambda name: replace(demo, backbone=replace(demo.backbone, depth=1))
lab_cli.run(multires.BENCH)
"""


@pytest.mark.slow
def test_two_processes_with_one_seed_have_bit_equal_losses_and_the_second_compiles_nothing(tmp_path, headers):
    command = [sys.executable, "-c", ONE_LAYER, "--preset", "demo", "--resolutions", "8", "--steps", "3"]
    environment = {
        **os.environ,
        "TMPDIR": str(headers),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    }
    shutil.copytree(headers / "probes", tmp_path / "cache")

    documents = []
    for _ in range(2):
        done = subprocess.run(
            [*command, "--out", str(tmp_path / "runs")], capture_output=True, text=True, check=True, env=environment
        )
        documents.append(json.loads(done.stdout.splitlines()[-1]))

    first, second = documents
    assert first["losses"] == second["losses"]
    assert (first["graphs"], first["graph_breaks"]) == (1, 0)
    assert first["cpp_builds"] > 10 > second["cpp_builds"]


def test_a_reports_command_names_no_place_on_this_machine(monkeypatch):
    places = ["--out", "/my/runs", "--resume=/my/runs/multires/000", "--resume", "/my/runs/multires/000"]
    monkeypatch.setattr(sys, "argv", ["bench", "--preset", "cpu", *places, "--seeds", "2"])

    assert markdown.command().endswith(" --preset cpu --seeds 2")
