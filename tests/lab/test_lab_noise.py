# ruff: noqa: N806 (tensors carry shape suffixes)
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusion.errors import ConfigError
from diffusion.parametrization import Parametrization, Target, diffuse
from diffusion.schedules import CosineLogSNR, LinearLogSNR, ResolutionShifted, alpha_sigma

SCHEDULES = [
    LinearLogSNR(),
    CosineLogSNR(),
    ResolutionShifted(inner=CosineLogSNR(), base_resolution=16),
    ResolutionShifted(inner=LinearLogSNR(start=10, end=-12), base_resolution=32),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=["linear", "cosine", "shifted cosine", "shifted linear"])
@pytest.mark.parametrize("resolution", [16, 64])
def test_time_inverts_logsnr_and_logsnr_falls(schedule, resolution):
    t_B = torch.linspace(0, 1, 101, dtype=torch.float64)

    logsnr_B = schedule.logsnr(t_B, resolution)

    assert (logsnr_B.diff() < 0).all()
    torch.testing.assert_close(schedule.time(logsnr_B, resolution), t_B, atol=1e-9, rtol=0)


def test_the_labs_schedule_is_linear_from_20_to_minus_20():
    logsnr_B = LinearLogSNR().logsnr(torch.tensor([0.0, 0.25, 0.5, 1.0]), 64)

    assert logsnr_B.tolist() == [20.0, 10.0, 0.0, -20.0]


def test_the_cosine_schedule_is_minus_two_log_tan_and_ends_where_it_should():
    t_B = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)

    logsnr_B = CosineLogSNR().logsnr(t_B, 16)

    # The squeeze moves interior times by less than 1e-4.
    expected = [20.0, -2 * math.log(math.tan(0.3 * math.pi / 2)), -20.0]
    torch.testing.assert_close(logsnr_B, torch.tensor(expected, dtype=torch.float64), atol=1e-3, rtol=0)


def test_a_doubled_side_shifts_logsnr_by_two_log_two_because_pooling_divides_noise_variance_by_four():
    schedule = ResolutionShifted(inner=CosineLogSNR(), base_resolution=16)
    t_B = torch.tensor([0.5])
    noise = torch.randn(64, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    shift = schedule.logsnr(t_B, 32) - schedule.logsnr(t_B, 16)

    assert float(shift) == pytest.approx(-2 * math.log(2), abs=1e-5)
    pooled = torch.nn.functional.avg_pool2d(noise, 2)
    assert math.log(float(pooled.var())) == pytest.approx(float(shift), abs=0.01)


@pytest.mark.parametrize(
    "make", [lambda: LinearLogSNR(start=-1, end=1), lambda: CosineLogSNR(start=0, end=0)], ids=["linear", "cosine"]
)
def test_a_schedule_that_does_not_fall_is_refused(make):
    with pytest.raises(ConfigError, match="fall"):
        make()


def example(seed, logsnr):
    generator = torch.Generator().manual_seed(seed)
    x0, epsilon, error = torch.randn(3, 4, 3, 6, 6, generator=generator, dtype=torch.float64)
    logsnr_B = torch.full((4,), logsnr, dtype=torch.float64)
    return x0, epsilon, error, logsnr_B, diffuse(x0, epsilon, logsnr_B)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), logsnr=st.floats(-12, 12))
def test_x0_epsilon_and_v_convert_into_each_other(seed, logsnr):
    x0, epsilon, _, logsnr_B, z = example(seed, logsnr)

    for target in Target:
        parametrization = Parametrization(target=target)
        wanted = parametrization.of(x0, epsilon, logsnr_B)
        torch.testing.assert_close(parametrization.x0(z, wanted, logsnr_B), x0, atol=1e-8, rtol=0)
        torch.testing.assert_close(parametrization.epsilon(z, wanted, logsnr_B), epsilon, atol=1e-8, rtol=0)
        v = Parametrization(target=Target.V).of(x0, epsilon, logsnr_B)
        torch.testing.assert_close(parametrization.v(z, wanted, logsnr_B), v, atol=1e-8, rtol=0)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), logsnr=st.floats(-12, 12))
def test_the_three_losses_of_one_estimate_differ_by_known_weights(seed, logsnr):
    x0, epsilon, error, logsnr_B, z = example(seed, logsnr)
    velocity = Parametrization(target=Target.V)
    said = velocity.of(x0, epsilon, logsnr_B) + error

    mse_v = error.square().mean()
    mse_x0 = (velocity.x0(z, said, logsnr_B) - x0).square().mean()
    mse_epsilon = (velocity.epsilon(z, said, logsnr_B) - epsilon).square().mean()

    alpha, sigma = alpha_sigma(logsnr_B[:1])
    torch.testing.assert_close(mse_x0, sigma[0] ** 2 * mse_v)
    torch.testing.assert_close(mse_epsilon, alpha[0] ** 2 * mse_v)
    torch.testing.assert_close(mse_x0 + mse_epsilon, mse_v)
    torch.testing.assert_close(mse_epsilon, math.exp(logsnr) * mse_x0)
    for target, loss in ((Target.X0, mse_x0), (Target.EPSILON, mse_epsilon), (Target.V, mse_v)):
        weight = Parametrization(target=target).x0_weight(logsnr_B[:1])[0]
        torch.testing.assert_close(weight * loss, mse_x0)
