"""Samplers over any denoiser: DDIM, Heun's method, DPM-Solver++(2M) and ancestral sampling.

Legend: B images, C colour channels, H and W pixels, S + 1 noise levels.

A denoiser is a function (z_BCHW, logsnr_B) -> prediction in some parametrization; a sampler asks a `Parametrization`
what that implies. All samplers start from one Gaussian draw and work at any resolution the denoiser accepts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from diffusion.data import CHANNELS
from diffusion.errors import ConfigError
from diffusion.model import Backbone
from diffusion.parametrization import Parametrization
from diffusion.random_streams import stream
from diffusion.schedules import Schedule, alpha_sigma, even_logsnr

Denoiser = Callable[[Tensor, Tensor], Tensor]


class Sampler(StrEnum):
    """Which rule takes an image from one noise level to the next."""

    DDIM = "ddim"  # deterministic, first order; one evaluation a step
    HEUN = "heun"  # deterministic, second order; two evaluations a step but the last
    DPM_2M = "dpm++2m"  # deterministic, second order; one evaluation a step
    ANCESTRAL = "ancestral"  # stochastic; one evaluation a step


class Spacing(StrEnum):
    """Where a sampler's noise levels lie."""

    TIME = "time"  # evenly in time, from 1 (noise) to 0 (clean)
    LOGSNR = "logsnr"  # evenly in logSNR, where boards are decided: -9 to 4, moved with the schedule


def levels(schedule: Schedule, resolution: int, steps: int, spacing: Spacing = Spacing.TIME) -> Tensor:
    """Return the steps + 1 levels logsnr_S1 of a sampler, from noise to clean."""
    if steps < 1:
        raise ConfigError(f"a sampler needs at least one step, got {steps}")
    if spacing is Spacing.LOGSNR:
        return even_logsnr(schedule, resolution, steps + 1, highest=4.0, lowest=-9.0).flip(0)
    return schedule.logsnr(torch.linspace(1, 0, steps + 1), resolution)


def _parts(
    denoise: Denoiser, parametrization: Parametrization, z_BCHW: Tensor, logsnr: Tensor
) -> tuple[Tensor, Tensor]:
    logsnr_B = logsnr.expand(len(z_BCHW))
    said_BCHW = denoise(z_BCHW, logsnr_B)
    x0_BCHW = parametrization.x0(z_BCHW, said_BCHW, logsnr_B)
    return x0_BCHW, parametrization.epsilon(z_BCHW, said_BCHW, logsnr_B)


def ddim_step(x0_BCHW: Tensor, epsilon_BCHW: Tensor, logsnr: Tensor) -> Tensor:
    """Return alpha x0 + sigma eps at the next noise level (Song et al., arXiv 2010.02502, eq. 12 with sigma_t = 0).

    For v-prediction this is a rotation of (z, v) by the difference of the two angles (Salimans & Ho, arXiv 2202.00512,
    appendix D).
    """
    alpha, sigma = alpha_sigma(logsnr)
    return alpha * x0_BCHW + sigma * epsilon_BCHW


def heun_step(z_BCHW: Tensor, x0_BCHW: Tensor, epsilon_BCHW: Tensor, logsnr: Tensor, following: Tensor) -> Tensor:
    """Turn z towards the next noise level by an estimate of (x0, eps) that need not lie on z.

    In the angle phi with tan phi = sigma / alpha, z moves by dz / dphi = v. With the mean of the estimates at both ends
    this is Heun's rule (Karras et al., arXiv 2206.00364, algorithm 1) in the frame that turns with z, where it is exact
    for a denoiser that always says the same. Recombining the mean at the next level instead would be DDIM again, since
    there the second estimate adds up to the proposal that it was asked about.
    """
    alpha, sigma = alpha_sigma(logsnr)
    alpha_s, sigma_s = alpha_sigma(following)
    v_BCHW = alpha * epsilon_BCHW - sigma * x0_BCHW
    return (alpha * alpha_s + sigma * sigma_s) * z_BCHW + (sigma_s * alpha - alpha_s * sigma) * v_BCHW


def dpm_2m_step(z_BCHW: Tensor, x0_BCHW: Tensor, before_BCHW: Tensor | None, logsnr_3: Tensor) -> Tensor:
    """Integrate x0, extrapolated from its last two estimates, over half logSNR (Lu et al., arXiv 2211.01095, alg. 2).

    `logsnr_3` holds the level of `before_BCHW`, this one and the next; without an estimate before it is first order.
    """
    before, here, following = logsnr_3
    sigma_t = alpha_sigma(here)[1]
    alpha_s, sigma_s = alpha_sigma(following)
    step = (following - here) / 2
    if before_BCHW is not None:
        x0_BCHW = x0_BCHW + (following - here) / (2 * (here - before)) * (x0_BCHW - before_BCHW)
    return sigma_s / sigma_t * z_BCHW - alpha_s * torch.expm1(-step) * x0_BCHW


def ancestral_step(z_BCHW: Tensor, x0_BCHW: Tensor, noise_BCHW: Tensor, logsnr: Tensor, following: Tensor) -> Tensor:
    """Draw from q(z_s | z_t, x0) (Kingma et al., arXiv 2107.00630, eqs. 25 and 32), s being the cleaner level."""
    alpha_t, sigma_t = alpha_sigma(logsnr)
    alpha_s, sigma_s = alpha_sigma(following)
    # 1 - sigma_t|s^2 / sigma_t^2 and its complement, from the SNRs alone: exact where both variances are near 1.
    kept = torch.exp(logsnr - following)
    fresh = -torch.expm1(logsnr - following)
    mean_BCHW = kept * (alpha_s / alpha_t) * z_BCHW + fresh * alpha_s * x0_BCHW
    del sigma_t
    return mean_BCHW + sigma_s * fresh.sqrt() * noise_BCHW


@torch.no_grad()
def sample(
    denoise: Denoiser,
    parametrization: Parametrization,
    logsnr_S1: Tensor,
    noise_BCHW: Tensor,
    *,
    sampler: Sampler = Sampler.DDIM,
    seed: int = 0,
) -> Tensor:
    """Return images x_BCHW, about in [-1, 1], from standard normal noise along falling noise levels.

    The last step always ends at the denoiser's x0. `seed` matters to the ancestral sampler only.
    """
    logsnr_S1 = logsnr_S1.to(noise_BCHW.device)
    z_BCHW = x0_BCHW = noise_BCHW
    before_BCHW: Tensor | None = None
    last = len(logsnr_S1) - 2
    for i in range(last + 1):
        here, following = logsnr_S1[i], logsnr_S1[i + 1]
        x0_BCHW, epsilon_BCHW = _parts(denoise, parametrization, z_BCHW, here)
        if i == last:
            break
        if sampler is Sampler.ANCESTRAL:
            fresh = torch.randn(z_BCHW.shape, generator=stream(seed, "ancestral", i)).to(z_BCHW.device)
            z_BCHW = ancestral_step(z_BCHW, x0_BCHW, fresh, here, following)
        elif sampler is Sampler.DPM_2M:
            levels_3 = torch.stack((logsnr_S1[max(0, i - 1)], here, following))
            z_BCHW, before_BCHW = dpm_2m_step(z_BCHW, x0_BCHW, before_BCHW, levels_3), x0_BCHW
        elif sampler is Sampler.HEUN:
            proposal_BCHW = ddim_step(x0_BCHW, epsilon_BCHW, following)
            x0_next, epsilon_next = _parts(denoise, parametrization, proposal_BCHW, following)
            mean = (x0_BCHW + x0_next) / 2, (epsilon_BCHW + epsilon_next) / 2
            z_BCHW = heun_step(z_BCHW, *mean, here, following)
        else:
            z_BCHW = ddim_step(x0_BCHW, epsilon_BCHW, following)
    return x0_BCHW


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """How images are drawn from a denoiser: the rule, and its noise levels."""

    sampler: Sampler = Sampler.HEUN
    spacing: Spacing = Spacing.TIME
    steps: int = 16
    """With these a perfect denoiser's images cannot be told from true boards (docs/lab.md)."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"a sampler needs at least one step, got {self.steps}")


def draw_images(
    denoise: Denoiser,
    parametrization: Parametrization,
    schedule: Schedule,
    *,
    count: int,
    resolution: int,
    drawing: Drawing,
    seed: int,
    batch: int = 64,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draw `count` images of `resolution` pixels a side from any denoiser, as x_BCHW in [-1, 1] on the CPU.

    The first n images do not depend on how many are drawn, but on `batch`, which divides them into streams.
    """
    logsnr_S1 = levels(schedule, resolution, drawing.steps, drawing.spacing)
    drawn = []
    for start in range(0, count, batch):
        shape = (min(batch, count - start), CHANNELS, resolution, resolution)
        noise_BCHW = torch.randn(shape, generator=stream(seed, "prior", resolution, start)).to(device)
        x_BCHW = sample(denoise, parametrization, logsnr_S1, noise_BCHW, sampler=drawing.sampler, seed=seed + start)
        drawn.append(x_BCHW.clamp(-1, 1).cpu())
    return torch.cat(drawn)


def sample_images(
    backbone: Backbone,
    parametrization: Parametrization,
    schedule: Schedule,
    *,
    count: int,
    resolution: int,
    drawing: Drawing,
    seed: int,
    batch: int = 64,
) -> Tensor:
    """Draw images from a backbone, as `draw_images` does; the backbone is left in the mode that it was in."""
    device = next(backbone.parameters()).device
    where = backbone.layout(resolution, device=device)

    def denoise(z_BCHW: Tensor, logsnr_B: Tensor) -> Tensor:
        said_BCHW: Tensor = backbone(z_BCHW, logsnr_B, where).target_BCHW
        return said_BCHW

    was_training = backbone.training
    backbone.eval()
    try:
        return draw_images(
            denoise,
            parametrization,
            schedule,
            count=count,
            resolution=resolution,
            drawing=drawing,
            seed=seed,
            batch=batch,
            device=device,
        )
    finally:
        backbone.train(was_training)
