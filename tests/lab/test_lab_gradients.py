import math

import pytest
import torch
from scipy.stats import kurtosis

from diffusion.backbone import BackboneConfig, HybridDiT
from diffusion.errors import ConfigError
from diffusion.gradients import (
    NORMAL_L_KURTOSIS,
    cosine_matrix,
    excess_kurtosis,
    gradient_statistics,
    l_kurtosis,
    noise_scale,
    single_gradients,
    times_denser_at_ends,
)
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Parametrization

GENERATOR_SEED = 0


def normal(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(GENERATOR_SEED), dtype=torch.float64)


def test_the_mean_of_single_gradients_is_the_gradient_of_the_batch():
    torch.manual_seed(0)
    backbone = HybridDiT(BackboneConfig(width=16, depth=2, heads=2, hidden=24, global_every=2))
    torch.nn.init.normal_(backbone.head.project.weight, std=0.1)
    objective = DenoisingObjective(backbone, Parametrization())
    x0, epsilon = torch.randn(2, 5, 3, 8, 8)
    logsnr, where = torch.linspace(-3, 3, 5), backbone.layout(8)

    rows, maps = single_gradients(objective, x0, epsilon, logsnr, where)
    terms = objective(x0, epsilon, logsnr, where)
    terms.loss.backward()

    whole = torch.cat([p.grad.flatten() for p in objective.parameters()])
    torch.testing.assert_close(rows.mean(dim=0), whole, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(maps.mean(dim=(1, 2)), terms.mse_B, atol=1e-5, rtol=1e-4)


def test_the_noise_scale_recovers_a_known_ratio_of_noise_to_signal():
    signal, noise, images = 0.5, 2.0, 64
    mean = torch.full((1000,), signal / math.sqrt(1000), dtype=torch.float64)
    g = mean + noise / math.sqrt(1000) * normal(images, 1000)

    scale, trace = noise_scale(g.square().sum(1).mean()[None], g.mean(0).square().sum()[None], images)

    assert float(trace) == pytest.approx(noise**2, rel=0.05)
    assert float(scale) == pytest.approx(noise**2 / signal**2, rel=0.25)


def test_the_noise_scale_is_infinite_where_there_is_no_signal():
    g = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)

    scale, _ = noise_scale(g.square().sum(1).mean()[None], g.mean(0).square().sum()[None], 4)

    assert math.isinf(float(scale))


def test_kurtosis_is_that_of_scipy_and_zero_for_constants():
    x = normal(3, 500).pow(3)

    torch.testing.assert_close(excess_kurtosis(x), torch.tensor(kurtosis(x.numpy(), axis=1)))
    assert excess_kurtosis(torch.ones(1, 10)).tolist() == [0.0]
    assert l_kurtosis(torch.ones(1, 10)).tolist() == [0.0]


def test_l_kurtosis_knows_the_normal_and_the_uniform_law():
    assert float(l_kurtosis(normal(200000))) == pytest.approx(NORMAL_L_KURTOSIS, abs=0.003)
    assert float(l_kurtosis(torch.linspace(0, 1, 5001, dtype=torch.float64))) == pytest.approx(0, abs=1e-6)


def test_l_kurtosis_of_heavy_tails_varies_less_between_samples_than_kurtosis():
    generator = torch.Generator().manual_seed(1)
    # The samples follow Student's t with five degrees of freedom.
    chi = torch.randn(60, 1000, 5, generator=generator, dtype=torch.float64).square().sum(-1)
    t5 = torch.randn(60, 1000, generator=generator, dtype=torch.float64) / (chi / 5).sqrt()

    robust, moment = l_kurtosis(t5), excess_kurtosis(t5)

    assert float(robust.std() / robust.mean()) < 0.4 * float(moment.std() / moment.mean())
    assert float(robust.min()) > NORMAL_L_KURTOSIS


def test_intervals_hold_the_estimate_and_narrow_with_more_images():
    def width(images):
        g = 0.3 + normal(images, 200)
        norm = gradient_statistics(g, torch.ones(images, 2, 2), bootstraps=200).mean_gradient_norm
        return norm.high - norm.low

    statistics = gradient_statistics(0.3 + normal(32, 200), torch.ones(32, 2, 2), bootstraps=100)

    assert statistics.noise_scale.low <= statistics.noise_scale.high
    assert statistics.loss_spatial_spread == 0
    assert width(256) < width(16)


def test_gradients_that_undo_each_other_have_cosine_minus_one():
    g = normal(1, 50)

    cosines = cosine_matrix(torch.cat([g, -2 * g, torch.zeros(1, 50, dtype=torch.float64)]))

    torch.testing.assert_close(
        cosines, torch.tensor([[1.0, -1, 0], [-1, 1, 0], [0, 0, 0]], dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_times_are_densest_at_both_ends():
    gaps = times_denser_at_ends(12).diff()

    assert gaps.argmax() in (5, 6)
    assert gaps[0] < gaps[1] < gaps[2]
    assert float(gaps[0]) == pytest.approx(float(gaps[-1]), rel=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: l_kurtosis(torch.ones(3)),
        lambda: times_denser_at_ends(0),
        lambda: gradient_statistics(torch.ones(3, 5), torch.ones(3, 2, 2)),
    ],
    ids=["three values", "no times", "three images"],
)
def test_too_few_numbers_are_refused(make):
    with pytest.raises(ConfigError):
        make()
