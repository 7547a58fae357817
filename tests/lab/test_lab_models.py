"""What every backbone keeps to, and what the equal-token model adds."""

from dataclasses import replace

import pytest
import torch

from benches.harness import lab_cli as cli
from benches.multires import __main__ as multires
from benches.multires.presets import MultiresConfig
from diffusion.backbone import BackboneConfig
from diffusion.buckets import BucketConfig, BucketSchedule
from diffusion.data import Checkerboards
from diffusion.equal_tokens import EqualTokensConfig
from diffusion.errors import ConfigError
from diffusion.model import Backbone
from diffusion.models import backbone_of
from diffusion.objective import DenoisingObjective
from diffusion.optimizer import OptimizerConfig
from diffusion.parametrization import Mode, Parametrization, Target
from diffusion.sampling import Drawing, sample_images
from diffusion.schedules import CosineLogSNR, ResolutionShifted
from diffusion.training import TrainConfig, Trainer

EQUAL = EqualTokensConfig(resolutions=(8, 16), side=4, width=16, depth=2, heads=2, hidden=24, base_resolution=8)
CONFIGS = {
    "hybrid": BackboneConfig(width=16, depth=2, heads=2, hidden=24, global_every=2, reflections=2, places=True),
    "equal tokens": EQUAL,
}
SCHEDULE = ResolutionShifted(inner=CosineLogSNR(), base_resolution=8)
every_model = pytest.mark.parametrize("kind", list(CONFIGS))


def model(kind, **changes):
    torch.manual_seed(0)
    return backbone_of(replace(CONFIGS[kind], **changes))


def noisy(resolution, count=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, resolution, resolution, generator=generator), torch.linspace(-4, 4, count)


@every_model
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("resolution", [8, 16])
def test_every_backbone_starts_at_zero_at_every_resolution(kind, mode, resolution):
    backbone = model(kind, mode=mode)
    z, logsnr = noisy(resolution)

    said = backbone(z, logsnr, backbone.layout(resolution))

    assert isinstance(backbone, Backbone)
    assert torch.equal(said.target_BCHW, torch.zeros_like(z))
    assert (said.logvar_B is not None) is (mode is Mode.FACTORIZED_NLL)


@every_model
def test_every_parameter_is_in_exactly_one_group_and_hidden_matrices_are_matrices(kind):
    backbone = model(kind, mode=Mode.FACTORIZED_NLL)

    groups = backbone.parameter_groups()

    grouped = [id(p) for parameters in groups.values() for p in parameters]
    assert sorted(grouped) == sorted(id(p) for p in backbone.parameters())
    assert {p.dim() for p in groups["matrices"]} == {2}


@every_model
def test_a_name_changes_with_the_configuration(kind):
    assert model(kind).name == model(kind).name
    assert model(kind).name != model(kind, depth=3).name


@every_model
def test_every_backbone_is_trained_and_sampled_and_learns(kind):
    trainer = Trainer(
        objective=DenoisingObjective(model(kind), Parametrization(target=Target.X0)),
        schedule=SCHEDULE,
        source=Checkerboards(),
        buckets=BucketSchedule(BucketConfig(resolutions=(8, 16), tokens_per_step=256), seed=0),
        config=TrainConfig(
            steps=60, compile=False, optimizer=OptimizerConfig(backbone_lr=6e-3, interface_lr=6e-3, muon_lr=1e-2)
        ),
    )

    losses = [record.mse for record in trainer.steps()]
    samples = sample_images(
        trainer.averaged, Parametrization(target=Target.X0), SCHEDULE, count=2, resolution=16,
        drawing=Drawing(steps=2), seed=0,
    )  # fmt: skip

    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert samples.shape == (2, 3, 16, 16)
    assert samples.abs().max() <= 1


@every_model
def test_every_backbone_is_one_static_graph_a_bucket_without_breaks(kind):
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    trainer = Trainer(
        objective=DenoisingObjective(model(kind), Parametrization()),
        schedule=SCHEDULE,
        source=Checkerboards(),
        buckets=BucketSchedule(BucketConfig(resolutions=(8, 16), tokens_per_step=64), seed=0),
        config=TrainConfig(steps=6, backend="eager", optimizer=OptimizerConfig(muon_lr=1e-2)),
    )

    list(trainer.steps())

    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert sum(torch._dynamo.utils.counters["graph_break"].values()) == 0
    torch._dynamo.reset()


def test_an_equal_token_model_has_as_many_tokens_at_every_resolution():
    backbone = model("equal tokens")
    seen = []
    backbone.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))

    for resolution in (8, 16):
        backbone(*noisy(resolution), backbone.layout(resolution))

    buckets = BucketSchedule(BucketConfig(resolutions=(8, 16), tokens_per_step=64, tokens=16), seed=0).buckets
    assert seen == [16, 16] == [bucket.tokens for bucket in buckets]
    assert [bucket.batch for bucket in buckets] == [4, 4]


def test_the_trunk_is_shown_the_unshifted_noise_level():
    backbone = model("equal tokens")
    seen = []
    backbone.fourier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    t = torch.linspace(0.1, 0.9, 3)

    for resolution in (8, 16):
        z, _ = noisy(resolution)
        backbone(z, SCHEDULE.logsnr(t, resolution), backbone.layout(resolution))

    torch.testing.assert_close(seen[0], seen[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0], CosineLogSNR().logsnr(t, 8), atol=1e-5, rtol=0)


def test_tokens_of_an_image_stand_where_they_are_in_it():
    backbone = model("equal tokens")
    for end in backbone.ends.values():
        torch.nn.init.normal_(end.head.out.weight, std=0.1)
    for block in backbone.blocks:
        torch.nn.init.zeros_(block.out.weight)
    z, logsnr = noisy(16)
    other = z.clone()
    other[..., 8:, 8:] = 0

    where = backbone.layout(16)
    with torch.no_grad():
        before, after = (backbone(images, logsnr, where).target_BCHW for images in (z, other))
    changed = (before - after).abs().amax((0, 1))

    # Windows reach half a token beyond their own; attention, which mixes all, is switched off here.
    assert float(changed[:4, :4].max()) == 0
    assert float(changed[8:, 8:].min()) > 0


def test_a_resolution_that_the_model_was_not_made_for_is_refused():
    with pytest.raises(ConfigError, match="made for"):
        model("equal tokens").layout(32)


@pytest.mark.parametrize(
    "values",
    [{"resolutions": (8, 18)}, {"resolutions": (4,)}, {"resolutions": (12,)}, {"heads": 3}, {"depth": 0}],
    ids=["uneven", "small", "odd stride", "uneven heads", "no layers"],
)
def test_impossible_equal_token_models_are_refused(values):
    with pytest.raises(ConfigError):
        replace(EQUAL, **values)


def test_other_resolutions_on_the_command_line_reach_the_model(monkeypatch):
    preset = MultiresConfig(preset="test", backbone=EQUAL, buckets=BucketConfig(resolutions=(8, 16), tokens=16))
    monkeypatch.setattr(multires, "preset", lambda _: preset)

    config = multires.configured(cli.LabOptions(preset="test", resolutions="16"))

    assert config.backbone.resolutions == config.buckets.resolutions == (16,)
    assert list(multires.trainer_for(config, Mode.NAIVE).averaged.ends) == ["16"]
