# ruff: noqa: N806 (tensors carry shape suffixes)
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffusion.attention import dense_mask
from diffusion.backbone import BackboneConfig, FeedForward, HybridDiT
from diffusion.errors import ConfigError, ResolutionError
from diffusion.feedforward import MixtureOfExperts
from diffusion.flops import forward_flops, local_pairs
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Mode, Parametrization, Target, diffuse
from diffusion.spans import image, mask_mods

TINY = BackboneConfig(width=16, depth=2, heads=2, hidden=24, global_every=2, reflections=2)


def backbone_of(**changes):
    torch.manual_seed(0)
    return HybridDiT(replace(TINY, **changes))


def batch(resolution=8, count=3):
    generator = torch.Generator().manual_seed(1)
    x0 = torch.rand(count, 3, resolution, resolution, generator=generator) * 2 - 1
    epsilon = torch.randn(x0.shape, generator=generator)
    return x0, epsilon, torch.linspace(-4, 4, count)


@pytest.mark.parametrize("feedforward", list(FeedForward))
@pytest.mark.parametrize("modulation", [True, False])
@pytest.mark.parametrize("resolution", [8, 12, 32])
def test_one_backbone_takes_any_resolution_and_starts_at_zero(feedforward, modulation, resolution):
    backbone = backbone_of(feedforward=feedforward, modulation=modulation)
    x0, _, logsnr = batch(resolution)

    said = backbone(x0, logsnr, backbone.layout(resolution))

    assert torch.equal(said.target_BCHW, torch.zeros_like(x0))
    assert (said.z_loss is not None) is (feedforward is FeedForward.MOE)


@pytest.mark.parametrize("target", list(Target))
def test_the_loss_at_the_start_is_the_second_moment_of_the_target(target):
    x0, epsilon, logsnr = batch(8, 64)
    objective = DenoisingObjective(backbone_of(), Parametrization(target=target))

    mse_B = objective(x0, epsilon, logsnr, objective.backbone.layout(8)).mse_B

    alpha2, sigma2 = logsnr.sigmoid(), (-logsnr).sigmoid()
    square = x0.square().mean(dim=(1, 2, 3))
    expected = {Target.X0: square, Target.EPSILON: torch.ones(64), Target.V: alpha2 + sigma2 * square}[target]
    # 192 numbers an image: the standard deviation of an empirical second moment is about 0.1.
    assert (mse_B - expected).mean().abs() < 0.04


def test_every_third_of_four_layers_is_local():
    config = BackboneConfig(depth=8)

    assert [config.is_global(layer) for layer in range(8)] == [False, False, False, True] * 2


def test_every_parameter_is_in_exactly_one_group():
    backbone = backbone_of(mode=Mode.FACTORIZED_NLL, interface_depth=2, places=True)

    groups = backbone.parameter_groups()

    grouped = [id(p) for parameters in groups.values() for p in parameters]
    assert sorted(grouped) == sorted(id(p) for p in backbone.parameters())
    assert len(groups["householder"]) == 1
    interface = {id(p) for p in groups["interface"]}
    assert {id(p) for p in backbone.head.parameters()} <= interface
    assert {id(p) for p in backbone.interface_in.parameters()} <= interface


def test_a_factorized_head_starts_near_the_naive_one_and_scales_by_the_learned_lambda():
    naive, factorized = backbone_of(), backbone_of(mode=Mode.FACTORIZED)
    for backbone in (naive, factorized):
        torch.nn.init.constant_(backbone.head.project.weight, 0.1)
    x0, _, logsnr = batch()
    where = naive.layout(8)

    start = factorized(x0, logsnr, where).target_BCHW / naive(x0, logsnr, where).target_BCHW
    with torch.no_grad():
        factorized.factors.lambda_.bias.fill_(2.0)
    later = factorized(x0, logsnr, where).target_BCHW / naive(x0, logsnr, where).target_BCHW

    torch.testing.assert_close(start, torch.full_like(start, math.sqrt(1 / (1 + math.exp(-4)))), rtol=1e-4, atol=0)
    torch.testing.assert_close(later, torch.full_like(later, math.sqrt(1 / (1 + math.exp(2)))), rtol=1e-4, atol=0)


def test_the_best_scale_of_a_fixed_raw_output_is_its_projection_on_the_target():
    backbone = backbone_of(mode=Mode.FACTORIZED)
    objective = DenoisingObjective(backbone, Parametrization())
    x0, epsilon, logsnr = batch(8, 6)
    where, wanted = backbone.layout(8), Parametrization().of(x0, epsilon, logsnr)
    head = backbone.head.project.weight
    torch.nn.init.normal_(head, std=0.1, generator=torch.Generator().manual_seed(0))
    said = backbone(diffuse(x0, epsilon, logsnr), logsnr, where).target_BCHW.detach()
    if (said * wanted).sum() < 0:
        head.data.neg_()
        said = -said

    with torch.no_grad():
        backbone.factors.log_g.bias.fill_(float(((said * wanted).sum() / said.square().sum()).log()))
    objective(x0, epsilon, logsnr, where).loss.backward()

    assert float(backbone.factors.log_g.bias.grad) == pytest.approx(0, abs=1e-6)


def test_the_likelihood_is_least_where_the_log_variance_is_the_log_of_the_error():
    backbone = backbone_of(mode=Mode.FACTORIZED_NLL)
    objective = DenoisingObjective(backbone, Parametrization())
    x0, epsilon, logsnr = batch(8, 6)
    logsnr = logsnr.mean().expand(6)
    where = backbone.layout(8)
    mse = objective(x0, epsilon, logsnr, where).mse_B.mean()

    with torch.no_grad():
        backbone.factors.logvar.bias.fill_(float(mse.log()))
    loss = objective(x0, epsilon, logsnr, where).loss
    loss.backward()

    assert float(loss.detach()) == pytest.approx(1 + float(mse.log()), abs=1e-5)
    assert float(backbone.factors.logvar.bias.grad) == pytest.approx(0, abs=1e-5)


def test_each_token_uses_exactly_the_active_experts_with_weights_that_sum_to_one():
    torch.manual_seed(0)
    mixture = MixtureOfExperts(width=8, hidden=6, experts=8, active=3)
    x_BND = torch.randn(2, 5, 8)

    weight_BNE, z_loss = mixture.route(x_BND)
    y_BND = mixture(x_BND).y_BND

    assert (weight_BNE > 0).sum(dim=-1).eq(3).all()
    torch.testing.assert_close(weight_BNE.sum(dim=-1), torch.ones(2, 5))
    assert float(z_loss.detach()) == pytest.approx(
        float(mixture.router(x_BND).logsumexp(-1).square().mean().detach()), rel=1e-6
    )
    by_hand = torch.zeros_like(y_BND)
    for expert in range(8):
        gate, value = (x_BND @ mixture.into_E2MD[expert].T).chunk(2, dim=-1)
        out = (torch.nn.functional.silu(gate) * value) @ mixture.out_EDM[expert].T
        by_hand = by_hand + weight_BNE[..., expert, None] * out
    torch.testing.assert_close(y_BND, by_hand, atol=1e-5, rtol=1e-4)


def test_router_noise_comes_from_outside_and_changes_the_choice_of_experts():
    torch.manual_seed(0)
    mixture = MixtureOfExperts(width=8, hidden=6, experts=8, active=3)
    x_BND, noise_BNE = torch.randn(2, 5, 8), 3 * torch.randn(2, 5, 8)

    quiet, noisy = mixture.route(x_BND)[0], mixture.route(x_BND, noise_BNE)[0]

    assert torch.equal(quiet, mixture.route(x_BND)[0])
    assert not torch.equal(quiet > 0, noisy > 0)


def test_gradients_reach_every_parameter_once_the_head_has_left_zero():
    backbone = backbone_of(feedforward=FeedForward.MOE, mode=Mode.FACTORIZED_NLL, places=True)
    torch.nn.init.normal_(backbone.head.project.weight, std=0.1)
    for block in (*backbone.interface_in, *backbone.interface_out):
        torch.nn.init.normal_(block.out.weight, std=0.1)
    x0, epsilon, logsnr = batch(16, 8)

    DenoisingObjective(backbone, Parametrization())(x0, epsilon, logsnr, backbone.layout(16)).loss.backward()

    silent = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_what_the_network_sees_is_the_noisy_image():
    objective = DenoisingObjective(backbone_of(), Parametrization(target=Target.X0))
    x0, epsilon, logsnr = batch()
    seen = []
    objective.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    objective(x0, epsilon, logsnr, objective.backbone.layout(8))

    torch.testing.assert_close(seen[0], diffuse(x0, epsilon, logsnr))


@pytest.mark.parametrize("feedforward", list(FeedForward))
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("modulation", [True, False])
def test_dense_flops_by_hand_equal_torchs_counter(feedforward, mode, modulation):
    config = replace(TINY, feedforward=feedforward, mode=mode, modulation=modulation, depth=3, places=modulation)
    backbone = HybridDiT(config)

    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        backbone(torch.zeros(1, 3, 16, 16), torch.zeros(1), backbone.layout(16))

    flops = forward_flops(config, 16)
    assert counter.get_total_flops() == flops.dense
    assert flops.effective < flops.dense


@pytest.mark.parametrize(("rows", "columns", "per_log2"), [(8, 8, 0.4), (4, 10, 0.4), (6, 6, 0.2)])
def test_effective_attention_counts_the_pairs_that_the_mask_lets_through(rows, columns, per_log2):
    nearby = mask_mods((image(rows, columns),), per_log2, torch.device("cpu"))[1]
    radius = max(1, round(per_log2 * math.log2(rows * columns)))

    seen = dense_mask(nearby, rows * columns, torch.device("cpu")).sum()

    assert int(seen) == local_pairs(rows, columns, radius)


def test_only_active_experts_count_as_effective():
    base = BackboneConfig(depth=1, global_every=1, hidden=96)

    dense, mixture = (forward_flops(replace(base, feedforward=kind), 16) for kind in FeedForward)

    router = 2 * 64 * 64 * 8
    assert mixture.effective == dense.effective + router
    assert mixture.dense == mixture.effective + 5 * 2 * 64 * 3 * 64 * 32


@pytest.mark.parametrize(
    "values",
    [
        {"width": 30, "heads": 4},
        {"depth": 0},
        {"active_experts": 9},
        {"axes": ("x",)},
        {"fourier_features": 5},
        {"interface_depth": -1},
        {"width": 8, "heads": 4},
    ],
    ids=["uneven heads", "no layers", "too many active", "one axis", "odd features", "negative depth", "few channels"],
)
def test_impossible_backbones_are_refused(values):
    with pytest.raises(ConfigError):
        BackboneConfig(**values)


@pytest.mark.parametrize("resolution", [-8, 2, 9])
def test_a_layout_for_an_impossible_resolution_is_refused(resolution):
    with pytest.raises(ResolutionError):
        backbone_of().layout(resolution)
