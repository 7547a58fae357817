# ruff: noqa: N803, N806 (tensors carry shape suffixes)
import math

import pytest
import torch

from benches.multires.perfect import perfect_scores
from benches.multires.presets import preset as multires_preset
from benches.multires.samplers import observed_order
from diffusion.data import Checkerboards
from diffusion.errors import ConfigError
from diffusion.metrics.contiguity import residual
from diffusion.metrics.panel import panel
from diffusion.optimal import OptimalDenoiser
from diffusion.parametrization import Parametrization, Target, diffuse
from diffusion.sampling import Sampler, Spacing, ancestral_step, ddim_step, levels, sample
from diffusion.schedules import CosineLogSNR, LinearLogSNR, ResolutionShifted, alpha_sigma
from diffusion.validation import bin_centres, optimal_mse_x0, validate, validation_set

BOARDS = Checkerboards()
SCHEDULE = ResolutionShifted(inner=CosineLogSNR())


def noisy(count, side, logsnr, seed=0):
    x0 = BOARDS.draw(count, side, seed=seed, step=0)
    epsilon = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
    logsnr_B = torch.full((count,), float(logsnr))
    return x0, diffuse(x0, epsilon, logsnr_B), logsnr_B


@pytest.mark.parametrize("logsnr", [-8.0, -5.0, -3.0])
def test_the_optimal_denoiser_is_the_posterior_mean_over_boards_drawn_from_the_prior(logsnr):
    _, z, logsnr_B = noisy(6, 8, logsnr)
    prior = BOARDS.draw(60000, 8, seed=9, step=0).double().flatten(1)

    best = OptimalDenoiser(boards=BOARDS, angles=512)(z, logsnr_B)

    alpha, sigma = alpha_sigma(logsnr_B[:1].double())
    weight = (-0.5 * torch.cdist(z.double().flatten(1), alpha * prior).square() / sigma**2).softmax(dim=1)
    estimate = weight @ prior
    effective = 1 / weight.square().sum(dim=1)
    # Importance sampling errs by about the posterior's deviation over the root of the effective sample size.
    allowed = 5 / effective.sqrt()
    assert effective.min() > 50
    assert ((best.flatten(1) - estimate).abs().amax(dim=1) < allowed).all()


def test_the_optimal_denoiser_knows_nothing_in_noise_and_everything_in_clear_images():
    _, z, logsnr_B = noisy(8, 16, -20)
    assert OptimalDenoiser(boards=BOARDS)(z, logsnr_B).abs().max() < 0.01

    x0, z, logsnr_B = noisy(8, 16, 10)
    assert (OptimalDenoiser(boards=BOARDS)(z, logsnr_B) - x0).square().mean() < 1e-4


def test_the_error_of_the_optimal_denoiser_is_orthogonal_to_its_estimate():
    x0, z, logsnr_B = noisy(800, 8, -3)

    best = OptimalDenoiser(boards=BOARDS, angles=256)(z, logsnr_B)

    product = ((x0 - best) * best).mean(dim=(1, 2, 3))
    assert product.mean().abs() < 4 * product.std() / math.sqrt(800)


def test_no_linear_denoiser_beats_the_optimal_one():
    for logsnr in (-6.0, -3.0, 0.0):
        x0, z, logsnr_B = noisy(64, 16, logsnr)
        best = (OptimalDenoiser(boards=BOARDS)(z, logsnr_B) - x0).square().mean()
        gain = (z * x0).sum() / z.square().sum()
        assert best < (gain * z - x0).square().mean()


def test_after_the_resolution_shift_the_best_losses_of_all_resolutions_nearly_coincide():
    def v_losses(side):
        logsnr = SCHEDULE.logsnr(bin_centres(8), side)
        return [optimal_mse_x0(BOARDS, side, 32, float(x)) * (1 + math.exp(float(x))) for x in logsnr]

    small, large = v_losses(16), v_losses(32)

    # Only below logSNR 2: above it what remains is the few pixels on edges, whose share halves with the side.
    assert sum(small[3:]) / 5 == pytest.approx(sum(large[3:]) / 5, rel=0.15)


def test_soft_edges_have_no_closed_form_and_their_optimum_is_left_out():
    soft = Checkerboards(supersampling=4)
    with pytest.raises(ConfigError, match="hard edges"):
        OptimalDenoiser(boards=soft)

    points = validate(
        lambda z, logsnr, side: torch.zeros_like(z),
        Parametrization(),
        SCHEDULE,
        soft,
        resolutions=(8,),
        bins=2,
        images=4,
    )
    assert [p.optimal for p in points] == [None, None]


def test_the_optimal_denoiser_has_no_excess_in_any_target():
    for target in Target:
        parametrization = Parametrization(target=target)

        def predict(z, logsnr, side, parametrization=parametrization):
            x0 = OptimalDenoiser(boards=BOARDS, angles=64 * side)(z, logsnr)
            velocity = (torch.sigmoid(logsnr[0].double()).sqrt() * z - x0) / torch.sigmoid(-logsnr[0].double()).sqrt()
            as_v = Parametrization(target=Target.V)
            if parametrization.target is Target.X0:
                return x0
            if parametrization.target is Target.EPSILON:
                return as_v.epsilon(z.double(), velocity, logsnr.double())
            return velocity

        points = validate(predict, parametrization, SCHEDULE, BOARDS, resolutions=(8,), bins=4, images=16)
        assert [p.excess for p in points] == pytest.approx([0] * 4, abs=1e-5)


def test_validation_is_repeatable_and_independent_of_training_seeds():
    first, second = validation_set(BOARDS, 16, 4), validation_set(BOARDS, 16, 4)

    assert torch.equal(first.x0_BCHW, second.x0_BCHW)
    assert torch.equal(first.epsilon_BCHW, second.epsilon_BCHW)
    assert bin_centres(4).tolist() == [0.125, 0.375, 0.625, 0.875]


def optimal_denoiser(target):
    def denoise(z, logsnr_B):
        x0 = OptimalDenoiser(boards=BOARDS, angles=512)(z, logsnr_B)
        as_x0 = Parametrization(target=Target.X0)
        if target is Target.V:
            return as_x0.v(z.double(), x0, logsnr_B.double()).float()
        return as_x0.epsilon(z.double(), x0, logsnr_B.double()).float()

    return denoise


@pytest.mark.parametrize("sampler", list(Sampler))
def test_every_sampler_turns_the_optimal_denoiser_into_true_boards(sampler):
    noise = torch.randn(96, 3, 16, 16, generator=torch.Generator().manual_seed(4))

    x = sample(
        optimal_denoiser(Target.V), Parametrization(), levels(SCHEDULE, 16, 40), noise, sampler=sampler, seed=1
    ).clamp(-1, 1)

    assert float(residual(x.numpy()).mean()) < 0.01
    z = {score.metric: score.z for score in panel(x, BOARDS, nulls=20)}
    # Discretisation leaves a few soft pixels; structure and colours are those of true draws.
    assert z["fd_autocorrelation"] < 10
    assert z["fd_hist_rgb_marg16"] < 10
    assert z["w1_fourfold_order"] < 6


@pytest.mark.parametrize(
    ("sampler", "order"), [(Sampler.DDIM, 1), (Sampler.HEUN, 2), (Sampler.DPM_2M, 2)], ids=["ddim", "heun", "dpm++2m"]
)
@pytest.mark.parametrize("target", list(Target))
def test_a_sampler_has_its_order_on_the_exact_flow_of_a_gaussian(sampler, order, target):
    assert observed_order(sampler, target).order == pytest.approx(order, abs=0.15)


def test_a_perfect_denoiser_cannot_be_told_from_true_draws_by_the_sampler_in_use():
    evaluation = multires_preset("cpu-long").evaluation

    scores = perfect_scores(
        BOARDS, SCHEDULE, resolution=16, images=192, drawing=evaluation.drawing, seed=0, nulls=20
    )  # fmt: skip

    # By DDIM in as many steps the palette has a z of 16.
    assert max(abs(score.z) for score in scores) < 3


def test_levels_that_are_even_in_logsnr_lie_where_boards_are_decided():
    even = levels(SCHEDULE, 16, 13, Spacing.LOGSNR)

    assert even.tolist() == pytest.approx(list(range(-9, 5)))
    assert levels(SCHEDULE, 64, 13, Spacing.LOGSNR).tolist() == pytest.approx((even - 4 * math.log(2)).tolist())


def test_at_equal_evaluations_both_second_order_samplers_are_closer_to_the_exact_flow_than_ddim():
    error = {sampler: observed_order(sampler).errors for sampler in (Sampler.DDIM, Sampler.HEUN, Sampler.DPM_2M)}

    assert error[Sampler.HEUN][32] < error[Sampler.DDIM][64] / 4
    assert error[Sampler.DPM_2M][64] < error[Sampler.DDIM][64] / 4


def test_deterministic_samplers_do_not_depend_on_the_parametrization_of_one_estimate():
    noise = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    steps = levels(LinearLogSNR(start=8, end=-8), 8, 12)

    by_v = sample(optimal_denoiser(Target.V), Parametrization(), steps, noise)
    by_epsilon = sample(optimal_denoiser(Target.EPSILON), Parametrization(target=Target.EPSILON), steps, noise)

    torch.testing.assert_close(by_v, by_epsilon, atol=1e-3, rtol=0)


def test_a_ddim_step_along_the_true_x0_and_noise_stays_on_their_path():
    x0, z, logsnr_B = noisy(4, 8, 0)
    epsilon = (z - logsnr_B[0].sigmoid().sqrt() * x0) / (-logsnr_B[0]).sigmoid().sqrt()

    moved = ddim_step(x0, epsilon, torch.tensor(2.0))

    torch.testing.assert_close(moved, diffuse(x0, epsilon, torch.full((4,), 2.0)), atol=1e-5, rtol=0)


def test_an_ancestral_step_keeps_the_marginal_law_of_the_noisy_image():
    generator = torch.Generator().manual_seed(0)
    x0 = torch.full((20000, 1, 1, 1), 0.7)
    here, following = torch.tensor(-1.0), torch.tensor(1.5)
    z = diffuse(x0, torch.randn(x0.shape, generator=generator), here.expand(len(x0)))

    moved = ancestral_step(z, x0, torch.randn(x0.shape, generator=generator), here, following)

    alpha, sigma = alpha_sigma(following)
    assert float(moved.mean()) == pytest.approx(float(alpha) * 0.7, abs=4 * float(sigma) / math.sqrt(20000))
    assert float(moved.std()) == pytest.approx(float(sigma), rel=0.03)


def test_a_sampler_without_steps_is_refused():
    with pytest.raises(ConfigError, match="at least one step"):
        levels(SCHEDULE, 16, 0)
