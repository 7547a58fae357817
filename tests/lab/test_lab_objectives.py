import math
from dataclasses import replace

import pytest
import torch

from benches.harness import paired
from benches.harness.run_folder import RunFolder
from benches.multires import objectives, objectives_presets, objectives_report
from diffusion.backbone import BackboneConfig, HybridDiT
from diffusion.buckets import BucketConfig, BucketSchedule
from diffusion.data import Checkerboards
from diffusion.errors import ConfigError
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Parametrization, Target, diffuse
from diffusion.schedules import CosineLogSNR, ResolutionShifted
from diffusion.training import TrainConfig, Trainer
from diffusion.weights import Bell, LossConfig, MinSNR, Phase, Sigmoid, Uniform, loss_at

LEVELS = torch.linspace(-6, 6, 25, dtype=torch.float64)
UNCAPPED = 1e9


@pytest.mark.parametrize("says", list(Target))
@pytest.mark.parametrize("loss_in", list(Target))
def test_an_error_counts_as_if_it_were_measured_in_the_other_quantity(says, loss_in):
    generator = torch.Generator().manual_seed(0)
    x0, epsilon, error = torch.randn(3, 25, 3, 4, 4, generator=generator, dtype=torch.float64)
    network, measured = Parametrization(target=says), Parametrization(target=loss_in)
    z = diffuse(x0, epsilon, LEVELS)
    said = network.of(x0, epsilon, LEVELS) + error

    as_x0 = network.x0(z, said, LEVELS)
    as_epsilon = network.epsilon(z, said, LEVELS)
    elsewhere = (measured.of(as_x0, as_epsilon, LEVELS) - measured.of(x0, epsilon, LEVELS)).square().mean((1, 2, 3))

    factor = LossConfig(loss_in=loss_in, cap=UNCAPPED).factor(LEVELS, says)
    torch.testing.assert_close(factor * error.square().mean((1, 2, 3)), elsewhere, rtol=1e-6, atol=0)


@pytest.mark.parametrize("weight", [MinSNR(), Sigmoid(bias=1.0)], ids=["min-snr", "sigmoid"])
@pytest.mark.parametrize("says", list(Target))
def test_weights_that_are_defined_for_one_quantity_mean_the_same_in_all(weight, says):
    factors = [LossConfig(loss_in=one, weight=weight, cap=UNCAPPED).factor(LEVELS, says) for one in Target]

    torch.testing.assert_close(factors[0], factors[1])
    torch.testing.assert_close(factors[0], factors[2])


def test_weights_have_their_published_forms():
    snr = LEVELS.exp()

    of_x0 = LossConfig(loss_in=Target.X0, weight=MinSNR(gamma=5.0)).factor(LEVELS, Target.X0)
    of_epsilon = LossConfig(loss_in=Target.EPSILON, weight=Sigmoid(bias=1.0)).factor(LEVELS, Target.EPSILON)
    bell = Bell(centre=-2.0, width=2.0, least=0.05).at(LEVELS, Target.V)

    torch.testing.assert_close(of_x0, snr.clamp(max=5.0))
    torch.testing.assert_close(of_epsilon, (1.0 - LEVELS).sigmoid())
    assert float(LEVELS[bell.argmax()]) == -2.0
    assert float(bell.min()) == pytest.approx(0.05)
    assert Uniform().at(LEVELS, Target.V).eq(1).all()


def test_the_loss_in_v_of_a_network_that_says_x0_counts_one_plus_snr_up_to_its_cap():
    factor = LossConfig(loss_in=Target.V, cap=4.0).factor(LEVELS, Target.X0)

    torch.testing.assert_close(factor, (1 + LEVELS.exp()).clamp(max=4.0))


def trainer_of(phases, *, says=Target.X0, steps=10, resolutions=(8,), **train):
    torch.manual_seed(0)
    backbone = HybridDiT(BackboneConfig(width=16, depth=2, heads=2, hidden=24, global_every=2))
    return Trainer(
        objective=DenoisingObjective(backbone, Parametrization(target=says)),
        schedule=ResolutionShifted(inner=CosineLogSNR(), base_resolution=8),
        source=Checkerboards(),
        buckets=BucketSchedule(BucketConfig(resolutions=resolutions, tokens_per_step=128), seed=0),
        config=TrainConfig(steps=steps, **{"compile": False, **train}),
        phases=phases,
    )


def test_a_loss_measured_in_what_the_network_says_is_the_plain_loss():
    plain = [record.loss for record in trainer_of(None).steps()]

    said = [record.loss for record in trainer_of((Phase(until=1.0, loss=LossConfig()),)).steps()]

    assert said == pytest.approx(plain, rel=1e-6)


def test_a_network_of_one_quantity_and_a_loss_in_another_are_trained_by_the_others_error():
    trainer = trainer_of((Phase(until=1.0, loss=LossConfig(loss_in=Target.V, cap=UNCAPPED)),))
    logsnr = []
    trainer.objective.register_forward_pre_hook(lambda _, inputs: logsnr.append(inputs[2]))

    terms = trainer.loss(0, trainer.buckets.buckets[0])

    as_v = (1 + logsnr[0].exp()) * terms.mse_B
    torch.testing.assert_close(terms.loss.detach(), as_v.mean(), rtol=1e-4, atol=0)
    assert not torch.allclose(terms.loss.detach(), terms.mse_B.mean(), rtol=0.1)
    assert terms.loss.requires_grad


def test_a_weight_means_the_same_difficulty_at_every_resolution():
    phases = (Phase(until=1.0, loss=LossConfig(loss_in=Target.V, cap=UNCAPPED)),)
    trainer = trainer_of(phases, resolutions=(8, 16))
    seen = []
    trainer._forward = lambda *inputs: seen.append((inputs[2], inputs[-1]))

    for bucket in trainer.buckets.buckets:
        trainer.loss(0, bucket)

    (small, of_small), (large, of_large) = seen
    torch.testing.assert_close(of_small, 1 + small.exp(), rtol=1e-4, atol=0)
    torch.testing.assert_close(of_large, 1 + (large + 2 * math.log(2)).exp(), rtol=1e-4, atol=0)


def test_the_loss_changes_where_a_phase_ends():
    first, second = LossConfig(loss_in=Target.X0), LossConfig(loss_in=Target.V)
    phases = (Phase(until=0.6, loss=first), Phase(until=1.0, loss=second))

    assert [loss_at(phases, step, 10) is first for step in range(10)] == [True] * 6 + [False] * 4


def test_a_loss_that_changes_during_training_compiles_one_graph():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    phases = (Phase(until=0.5, loss=LossConfig()), Phase(until=1.0, loss=LossConfig(loss_in=Target.V, cap=4.0)))

    list(trainer_of(phases, steps=4, compile=True, backend="eager").steps())

    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert sum(torch._dynamo.utils.counters["graph_break"].values()) == 0
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "make",
    [
        lambda: MinSNR(gamma=0.0),
        lambda: Bell(width=0.0),
        lambda: LossConfig(cap=0.0),
        lambda: trainer_of(()),
        lambda: trainer_of((Phase(until=0.5, loss=LossConfig()),)),
        lambda: objectives.configured(objectives.cli.LabOptions(preset="demo", mode="both")),
    ],
    ids=["no gamma", "no width", "no cap", "no phase", "phases that end early", "two modes"],
)
def test_impossible_losses_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def cell(row, seed, excess):
    return {"row": row, "seed": seed, "status": "ok", "excess_x0": excess, "excess_v": 2 * excess, "r2": 0.5}


def test_what_cannot_be_told_apart_is_called_so_and_differences_are_paired_by_seed():
    # Seeds differ by far more than the rows.
    cells = [cell("a", seed, 0.1 * seed) for seed in range(3)] + [
        cell("b", seed, 0.1 * seed + 0.01 + 1e-4 * seed) for seed in range(3)
    ]
    cells += [cell("c", seed, 0.1 * seed + 0.01 * (-1) ** seed) for seed in range(3)]

    def words(name):
        return paired.verdict(objectives_report.differences(cells, name, "a", "excess_x0"), name, "a")

    assert words("b").startswith("b is worse than a (+0.0101")
    assert words("c").startswith("c and a cannot be told apart")
    assert "two seeds" in paired.verdict([0.1], "d", "a")


def test_the_nine_pairs_are_all_there():
    pairs = {(row.says, row.loss.loss_in) for row in objectives_presets.PAIRS}

    assert len(pairs) == 9
    assert math.isfinite(max(row.loss.cap for row in objectives_presets.PAIRS))


def test_the_report_names_the_best_rows_and_those_that_learn_no_boards(tmp_path):
    config = replace(objectives_presets.preset("demo"), seeds=(0, 1, 2))
    first, second, third = (row.name for row in config.rows)
    cells = [cell(first, seed, 0.2 + 0.1 * seed) for seed in config.seeds]
    cells += [cell(second, seed, 0.1 + 0.1 * seed + 1e-4 * seed) | {"r2": 0.1 + 0.001 * seed} for seed in config.seeds]
    cells += [{"row": third, "seed": seed, "status": "diverged", "error": "no number"} for seed in config.seeds]

    with RunFolder.create(tmp_path, "objectives", config) as folder:
        for one in cells:
            folder.log({"kind": "cell", **one})
        summary = objectives_report.write_report(config, folder)
        report = (folder.path / "report.md").read_text()

    assert [r["diverged"] for r in summary] == [0, 0, 3]
    assert f"The best rows: in x0 {second} is better than {first} (-0.0999, " in report
    assert f"in 1 - R2 {first}." in report
    assert f"no boards, R2 below 0.2, were learned by {second} (0.101 ± 0.0025); diverged: {third}." in report
