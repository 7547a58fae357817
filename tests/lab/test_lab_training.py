# ruff: noqa: N806 (tensors carry shape suffixes)
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from diffusion.backbone import BackboneConfig, FeedForward, HybridDiT
from diffusion.buckets import BucketConfig, BucketSchedule
from diffusion.checkpoints import load_checkpoint, save_checkpoint
from diffusion.data import Checkerboards
from diffusion.errors import CheckpointMismatchError, ConfigError, LossDivergedError, RunFolderError
from diffusion.objective import DenoisingObjective
from diffusion.optimizer import OptimizerConfig, Policy
from diffusion.parametrization import Mode, Parametrization
from diffusion.random_streams import stream
from diffusion.schedules import CosineLogSNR, ResolutionShifted
from diffusion.training import TimeSampling, TrainConfig, Trainer, sample_times

TINY = BackboneConfig(width=16, depth=2, heads=2, hidden=24, global_every=2, reflections=2)


def trainer_of(*, steps=12, seed=0, backbone=TINY, resolutions=(8, 12), tokens=256, **train):
    torch.manual_seed(seed)
    train = {"compile": False, **train}
    return Trainer(
        objective=DenoisingObjective(HybridDiT(backbone), Parametrization()),
        schedule=ResolutionShifted(inner=CosineLogSNR()),
        source=Checkerboards(),
        buckets=BucketSchedule(BucketConfig(resolutions=resolutions, tokens_per_step=tokens), seed=seed),
        config=TrainConfig(steps=steps, seed=seed, **train),
    )


@pytest.mark.parametrize("feedforward", list(FeedForward))
def test_a_resumed_run_repeats_the_losses_and_weights_of_an_uninterrupted_one_bit_for_bit(feedforward, tmp_path):
    config = replace(TINY, feedforward=feedforward, mode=Mode.FACTORIZED_NLL)
    whole = trainer_of(backbone=config)
    expected = [record.loss for record in whole.steps()]

    first = trainer_of(backbone=config)
    steps = first.steps()
    head = [next(steps).loss for _ in range(5)]
    save_checkpoint(first, tmp_path / "half.pt")
    second = trainer_of(backbone=config)
    torch.rand(100)  # the global generator must not matter
    load_checkpoint(second, tmp_path / "half.pt")
    tail = [record.loss for record in second.steps()]

    assert head + tail == expected
    for mine, theirs in zip(second.averaged.parameters(), whole.averaged.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_training_lowers_the_loss_of_the_averaged_weights():
    trainer = trainer_of(
        steps=120, resolutions=(8,), tokens=512, optimizer=OptimizerConfig(backbone_lr=6e-3, interface_lr=6e-3)
    )

    losses = [record.mse for record in trainer.steps()]

    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def test_every_record_says_which_shape_it_was():
    records = list(trainer_of(steps=4).steps())

    assert [r.step for r in records] == [0, 1, 2, 3]
    assert {(r.resolution, r.batch) for r in records} == {(8, 16), (12, 7)}
    assert all(r.grad_norm > 0 and r.seconds > 0 and r.lr > 0 for r in records)


def test_a_loss_that_is_not_finite_stops_training_before_the_weights_are_touched():
    trainer = trainer_of()
    steps = trainer.steps()
    next(steps)
    with torch.no_grad():
        trainer.objective.backbone.embed.project.weight[0, 0, 0, 0] = float("nan")
    before = trainer.objective.backbone.head.project.weight.clone()

    with pytest.raises(LossDivergedError, match="step 1 ") as caught:
        next(steps)

    assert caught.value.step == 1
    assert torch.equal(trainer.objective.backbone.head.project.weight, before)


def test_a_checkpoint_of_another_run_is_refused_and_names_the_difference(tmp_path):
    save_checkpoint(trainer_of(), tmp_path / "run.pt")

    with pytest.raises(CheckpointMismatchError, match="train") as caught:
        load_checkpoint(trainer_of(steps=13), tmp_path / "run.pt")
    assert caught.value.fields == ("train",)
    with pytest.raises(CheckpointMismatchError, match="backbone"):
        load_checkpoint(trainer_of(backbone=replace(TINY, depth=3)), tmp_path / "run.pt")


def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "junk.pt").write_bytes(b"not a checkpoint")

    for path in (tmp_path / "junk.pt", tmp_path / "missing.pt"):
        with pytest.raises(RunFolderError, match="not a readable checkpoint"):
            load_checkpoint(trainer_of(), path)
    with pytest.raises(RunFolderError, match="cannot write"):
        save_checkpoint(trainer_of(), tmp_path / "no such folder" / "run.pt")


@pytest.mark.parametrize("how", [TimeSampling.ANTITHETIC, TimeSampling.STRATIFIED])
def test_spread_times_put_exactly_one_time_in_each_stratum(how):
    t_B = sample_times(16, how, stream(0, "time"))

    assert sorted((t_B * 16).floor().int().tolist()) == list(range(16))


def test_spread_times_estimate_a_mean_over_time_with_less_variance_than_independent_ones():
    def spread(how):
        means = torch.stack([sample_times(8, how, stream(i, "time")).square().mean() for i in range(400)])
        assert abs(float(means.mean()) - 1 / 3) < 4 * float(means.std()) / 20
        return float(means.std())

    independent = spread(TimeSampling.UNIFORM)
    assert spread(TimeSampling.ANTITHETIC) < independent / 2
    assert spread(TimeSampling.STRATIFIED) < independent / 2


def test_each_group_of_parameters_has_its_own_rate_and_the_rotary_basis_never_decays():
    optimizer = OptimizerConfig(backbone_lr=1e-3, interface_lr=2e-3, householder_lr=3e-3, weight_decay=0.1)
    trainer = trainer_of(optimizer=optimizer)

    groups = [(g["name"], g["max_lr"], g["weight_decay"]) for g in trainer.optimizer.param_groups]
    assert ("matrices", 1e-3, 0.1) in groups

    assert ("householder", 3e-3, 0.0) in groups
    assert ("interface", 2e-3, 0.1) in groups
    assert ("backbone", 1e-3, 0.1) in groups
    assert not [g for g in groups if g[0] == "householder" and g[2] > 0]


def test_one_cycle_rises_to_the_peak_and_falls_to_nearly_nothing():
    rates = [record.lr for record in trainer_of(steps=40, optimizer=OptimizerConfig(backbone_lr=1e-3)).steps()]

    peak = max(range(40), key=rates.__getitem__)
    assert rates[peak] == pytest.approx(1e-3, rel=0.05)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[-1] < 1e-5


def test_under_wsd_the_rate_rises_stays_and_falls_in_a_straight_line():
    optimizer = OptimizerConfig(backbone_lr=1e-3, policy=Policy.WSD, warmup=0.1, decay=0.4)

    rates = [record.lr for record in trainer_of(steps=40, resolutions=(8,), optimizer=optimizer).steps()]

    assert rates[:4] == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3])
    assert rates[3:25] == pytest.approx([1e-3] * 22)
    assert rates[24:] == pytest.approx([1e-3 * (40 - step) / 16 for step in range(24, 40)])


def test_muon_trains_the_hidden_matrices_and_adamw_the_rest():
    trainer = trainer_of(optimizer=OptimizerConfig(muon_lr=1e-2), backbone=replace(TINY, feedforward=FeedForward.MOE))

    muon, adamw = trainer.optimizer.parts

    named = {id(p): name for name, p in trainer.objective.backbone.named_parameters()}
    by_muon = {named[id(p)] for group in muon.param_groups for p in group["params"]}
    by_adamw = {named[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert isinstance(muon, torch.optim.Muon)
    assert by_muon == {
        f"blocks.{i}.attention.{part}.weight" for i in (0, 1) for part in ("query_key", "value_gate", "out")
    }
    assert by_muon | by_adamw == set(named.values())
    assert not by_muon & by_adamw


def test_a_first_step_of_muon_turns_a_matrix_by_one_size_in_all_directions():
    trainer = trainer_of(optimizer=OptimizerConfig(muon_lr=1e-2, weight_decay=0.0, warmup=0.5), resolutions=(8,))
    torch.nn.init.normal_(trainer.objective.backbone.head.project.weight, std=0.1)
    weight = trainer.objective.backbone.blocks[0].attention.query_key.weight
    before = weight.detach().clone()

    next(trainer.steps())

    sizes = torch.linalg.svdvals(weight.detach() - before)
    # Newton and Schulz's five rounds leave singular values of 0.7 to 1.2 of one size; AdamW's differ by far more.
    assert float(sizes.max() / sizes.min()) < 2.5


def test_a_resumed_run_with_muon_and_wsd_repeats_the_losses_bit_for_bit(tmp_path):
    optimizer = OptimizerConfig(muon_lr=1e-2, policy=Policy.WSD)
    whole = [record.loss for record in trainer_of(steps=8, optimizer=optimizer).steps()]

    first = trainer_of(steps=8, optimizer=optimizer)
    steps = first.steps()
    head = [next(steps).loss for _ in range(4)]
    save_checkpoint(first, tmp_path / "half.pt")
    second = trainer_of(steps=8, optimizer=optimizer)
    load_checkpoint(second, tmp_path / "half.pt")

    assert head + [record.loss for record in second.steps()] == whole


@pytest.mark.slow
def test_one_static_graph_per_bucket_and_mode_without_breaks_or_later_compiles():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    graphs = torch._dynamo.utils.counters["stats"]
    modes = (Mode.NAIVE, Mode.FACTORIZED, Mode.FACTORIZED_NLL)

    for i, mode in enumerate(modes):
        for feedforward in FeedForward:
            before = graphs["unique_graphs"]
            config = replace(TINY, mode=mode, feedforward=feedforward)
            trainer = trainer_of(steps=12, resolutions=(8, 12, 16, 20), backbone=config, compile=True, backend="eager")
            steps = trainer.steps()
            for _ in range(trainer.buckets.round_length):
                next(steps)
            assert graphs["unique_graphs"] == before + 4, (i, mode, feedforward)
            with torch._dynamo.config.patch(error_on_recompile=True):
                list(steps)
            assert graphs["unique_graphs"] == before + 4

    assert sum(torch._dynamo.utils.counters["graph_break"].values()) == 0
    torch._dynamo.reset()


def test_compiled_and_eager_training_agree():
    torch._dynamo.reset()
    eager = [record.loss for record in trainer_of(steps=6).steps()]

    compiled = [record.loss for record in trainer_of(steps=6, compile=True, backend="aot_eager").steps()]

    assert compiled == pytest.approx(eager, rel=1e-5)
    torch._dynamo.reset()


def test_a_training_process_imports_neither_scipy_nor_matplotlib_nor_a_compiler():
    program = (
        "import sys, benches.multires.__main__, diffusion.training\n"
        "heavy = {'scipy', 'matplotlib', 'PIL', 'torch._inductor', 'rich.progress'} & set(sys.modules)\n"
        "print(*sorted(heavy))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
    )

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "values",
    [{"steps": 0}, {"grad_clip": 0.0}, {"ema_decay": 1.0}, {"router_noise": -1.0}],
    ids=["no steps", "no clip", "frozen average", "negative noise"],
)
def test_impossible_training_is_refused(values):
    with pytest.raises(ConfigError):
        TrainConfig(**values)


@pytest.mark.parametrize(
    "values",
    [{"backbone_lr": 0.0}, {"muon_lr": 0.0}, {"weight_decay": -1.0}, {"warmup": 1.0}, {"warmup": 0.5, "decay": 0.6}],
    ids=["no rate", "no rate for Muon", "negative decay", "warmup only", "more than a whole"],
)
def test_impossible_optimizers_are_refused(values):
    with pytest.raises(ConfigError):
        OptimizerConfig(**values)
