"""Loss at fixed noise levels with fixed images and noise, and as excess over the best possible loss.

Legend: B images, C colour channels, H and W pixels.

Training losses mix noise levels at random; two models are compared here on the same images, noise and levels (bin
centres (i + 0.5) / n in time). The excess over the optimum is what training can still change.
"""

# ruff: noqa: N815 (fields that are tensors carry shape suffixes)

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.data import Checkerboards, ImageSource
from diffusion.errors import ConfigError
from diffusion.optimal import OptimalDenoiser
from diffusion.parametrization import Parametrization, diffuse
from diffusion.random_streams import stream
from diffusion.schedules import Schedule

VALIDATION_SEED = 20260202
"""Far from the seeds people choose, so that no training run sees the validation images."""


class ValidationPoint(NamedTuple):
    """The loss at one noise level of one resolution."""

    resolution: int  # pixels a side
    t: float
    logsnr: float
    loss: float  # mean squared error in the trained target
    mse_x0: float  # the same error as an error of x0
    optimal: float | None  # the least loss that any model can have, in the trained target; None if unknown
    excess: float | None  # loss - optimal


class ValidationSet(NamedTuple):
    """Fixed images and noise of one resolution."""

    x0_BCHW: Tensor
    epsilon_BCHW: Tensor


def validation_set(source: ImageSource, resolution: int, images: int) -> ValidationSet:
    """Return the images and noise that every model is validated on."""
    if images < 1:
        raise ConfigError(f"validation needs at least one image, got {images}")
    x0_BCHW = source.draw(images, resolution, seed=VALIDATION_SEED, step=0)
    noise = torch.randn(x0_BCHW.shape, generator=stream(VALIDATION_SEED, "noise", resolution))
    return ValidationSet(x0_BCHW, noise)


def bin_centres(bins: int) -> Tensor:
    """Return the stratified times (i + 0.5) / bins."""
    if bins < 1:
        raise ConfigError(f"validation needs at least one bin, got {bins}")
    return (torch.arange(bins) + 0.5) / bins


@lru_cache(maxsize=256)
def optimal_mse_x0(source: Checkerboards, resolution: int, images: int, logsnr: float) -> float:
    """Return the mean squared error of the posterior mean on the validation set.

    It is this set's error, not the law's, so that a perfect model has excess zero
    up to the chance that its error on a finite set is below the posterior mean's.
    """
    fixed = validation_set(source, resolution, images)
    logsnr_B = torch.full((images,), logsnr)
    z_BCHW = diffuse(fixed.x0_BCHW, fixed.epsilon_BCHW, logsnr_B)
    best_BCHW = OptimalDenoiser(boards=source, angles=64 * resolution)(z_BCHW, logsnr_B)
    return float((best_BCHW - fixed.x0_BCHW).square().mean())


@torch.no_grad()
def validate(
    predict: Callable[[Tensor, Tensor, int], Tensor],
    parametrization: Parametrization,
    schedule: Schedule,
    source: ImageSource,
    *,
    resolutions: tuple[int, ...],
    bins: int = 8,
    images: int = 64,
    device: torch.device | str = "cpu",
) -> list[ValidationPoint]:
    """Return the losses of `predict` (z_BCHW, logsnr_B, resolution -> prediction) at every bin and resolution."""
    points = []
    for resolution in resolutions:
        fixed = validation_set(source, resolution, images)
        x0_BCHW, epsilon_BCHW = fixed.x0_BCHW.to(device), fixed.epsilon_BCHW.to(device)
        for t in bin_centres(bins):
            logsnr_B = schedule.logsnr(t.expand(images), resolution)
            logsnr = float(logsnr_B[0])
            logsnr_B = logsnr_B.to(device)
            z_BCHW = diffuse(x0_BCHW, epsilon_BCHW, logsnr_B)
            wanted_BCHW = parametrization.of(x0_BCHW, epsilon_BCHW, logsnr_B)
            loss = float((predict(z_BCHW, logsnr_B, resolution) - wanted_BCHW).square().mean())
            weight = float(parametrization.x0_weight(logsnr_B[:1].double()))
            best = None
            if isinstance(source, Checkerboards) and source.supersampling == 1:
                best = optimal_mse_x0(source, resolution, images, logsnr)
            optimal = None if best is None else best / weight
            excess = None if optimal is None else loss - optimal
            points.append(ValidationPoint(resolution, float(t), logsnr, loss, weight * loss, optimal, excess))
    return points
