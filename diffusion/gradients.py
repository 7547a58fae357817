"""Gradients of single images at one noise level: their size, their noise and the shape of their law.

Legend: B images, C colour channels, H and W pixels, P parameters, S bootstrap samples.

With g_i the gradient of image i and G its expectation: tr(Sigma) is the summed variance of g_i, and B_simple =
tr(Sigma) / |G|^2 is the batch size at which noise and signal are equal (McCandlish et al., arXiv 1812.06162, eq. 2.9;
estimators of appendix A.1 with small batches of one image). Two kurtoses are reported under their own names: over the
parameters of the mean gradient, and over images of their projection on the mean gradient. Moment estimates of kurtosis
are unreliable for heavy tails, so each has a robust twin, L-kurtosis (Hosking 1990; 0.1226 for a normal law).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.errors import ConfigError
from diffusion.objective import DenoisingObjective
from diffusion.random_streams import stream
from diffusion.spans import Layout

NORMAL_L_KURTOSIS = 0.1226


class Interval(NamedTuple):
    """An estimate with its 95 % bootstrap interval."""

    estimate: float
    low: float
    high: float


class GradientStatistics(NamedTuple):
    """What the gradients at one noise level look like."""

    loss_mean: float
    loss_spatial_spread: float  # standard deviation over pixels of the mean loss map, over its mean
    mean_gradient_norm: Interval  # |mean of g_i|
    single_gradient_norm: float  # mean of |g_i|
    gradient_variance: float  # tr(Sigma), unbiased
    noise_scale: Interval  # B_simple in images; infinite where no signal can be told from noise
    kurtosis_over_parameters: Interval  # excess
    l_kurtosis_over_parameters: Interval
    kurtosis_over_images: Interval  # excess
    l_kurtosis_over_images: Interval


def single_gradients(
    objective: DenoisingObjective,
    x0_BCHW: Tensor,
    epsilon_BCHW: Tensor,
    logsnr_B: Tensor,
    where: Layout,
) -> tuple[Tensor, Tensor]:
    """Return (g_BP, map_BHW): each image's gradient of its own loss, and its squared error per pixel.

    One backward pass an image: on the small models of this lab that is as fast as batching, and exact for any layer.
    """
    parameters = [p for p in objective.parameters() if p.requires_grad]
    rows, maps = [], []
    for i in range(len(x0_BCHW)):
        part = slice(i, i + 1)
        terms = objective(x0_BCHW[part], epsilon_BCHW[part], logsnr_B[part], where)
        found = torch.autograd.grad(terms.loss, parameters, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([g.flatten() for g in found]))
        maps.append(objective.error_map(x0_BCHW[part], epsilon_BCHW[part], logsnr_B[part], where))
    return torch.stack(rows), torch.cat(maps)


def excess_kurtosis(x_SP: Tensor) -> Tensor:
    """Return the fourth standardised moment minus 3 along the last dimension, in float64; 0 for constants."""
    centred = x_SP.double() - x_SP.double().mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1)
    fourth = centred.pow(4).mean(dim=-1)
    return torch.where(variance > 0, fourth / variance.square().clamp(min=1e-300) - 3, 0.0)


def l_kurtosis(x_SP: Tensor) -> Tensor:
    """Return the ratio of the fourth to the second L-moment along the last dimension (Hosking 1990); 0 for constants.

    Sample probability-weighted moments of order statistics. Bounded by 1, and it exists wherever the mean does.
    """
    ordered = x_SP.double().sort(dim=-1).values
    n = ordered.shape[-1]
    if n < 4:
        raise ConfigError(f"L-kurtosis needs at least four values, got {n}")
    j = torch.arange(n, dtype=torch.float64)
    b0 = ordered.mean(dim=-1)
    w1 = j / (n - 1)
    w2 = w1 * (j - 1) / (n - 2)
    w3 = w2 * (j - 2) / (n - 3)
    b1, b2, b3 = ((ordered * w).mean(dim=-1) for w in (w1, w2, w3))
    second, fourth = 2 * b1 - b0, 20 * b3 - 30 * b2 + 12 * b1 - b0
    return torch.where(second > 0, fourth / second.clamp(min=1e-300), 0.0)


def noise_scale(mean_square_S: Tensor, square_of_mean_S: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    """Return (B_simple, tr Sigma) from the mean of |g_i|^2 and |mean g_i|^2 over `batch` images, both debiased.

    B_simple is infinite where the debiased |G|^2 is not positive: the signal is below the noise.
    """
    trace_S = batch / (batch - 1) * (mean_square_S - square_of_mean_S)
    signal_S = (batch * square_of_mean_S - mean_square_S) / (batch - 1)
    positive = signal_S > 0
    scale_S = torch.where(positive, trace_S / torch.where(positive, signal_S, 1.0), torch.inf)
    return scale_S, trace_S


def _interval(values_S: Tensor) -> Interval:
    """Return an estimate with its interval: the first value is the estimate, the others its bootstrap."""
    drawn = values_S[1:]
    low, high = (drawn.quantile(q, interpolation="nearest") for q in (0.025, 0.975))
    return Interval(float(values_S[0]), float(low), float(high))


def gradient_statistics(g_BP: Tensor, map_BHW: Tensor, *, bootstraps: int = 40, seed: int = 0) -> GradientStatistics:
    """Summarise single-image gradients; intervals come from resampling images. Needs at least four images."""
    batch = len(g_BP)
    if batch < 4 or bootstraps < 2:
        raise ConfigError(f"statistics need four images and two bootstraps, got {batch} and {bootstraps}")
    g_BP = g_BP.double()
    resampled = torch.randint(batch, (bootstraps, batch), generator=stream(seed, "bootstrap"))
    index_SB = torch.cat([torch.arange(batch)[None], resampled])
    weight_SB = torch.zeros(len(index_SB), batch, dtype=torch.float64)
    weight_SB.scatter_add_(1, index_SB, torch.full(index_SB.shape, 1 / batch, dtype=torch.float64))
    mean_SP = weight_SB @ g_BP
    square_B = g_BP.square().sum(dim=1)
    norm_S = mean_SP.norm(dim=1)
    scale_S, trace_S = noise_scale(weight_SB @ square_B, norm_S.square(), batch)
    projected_B = g_BP @ mean_SP[0] / norm_S[0].clamp(min=1e-300)
    projected_SB = projected_B[index_SB]
    loss_HW = map_BHW.double().mean(dim=0)
    return GradientStatistics(
        loss_mean=float(loss_HW.mean()),
        loss_spatial_spread=float(loss_HW.std() / loss_HW.mean().clamp(min=1e-300)),
        mean_gradient_norm=_interval(norm_S),
        single_gradient_norm=float(square_B.sqrt().mean()),
        gradient_variance=float(trace_S[0]),
        noise_scale=_interval(scale_S),
        kurtosis_over_parameters=_interval(excess_kurtosis(mean_SP)),
        l_kurtosis_over_parameters=_interval(l_kurtosis(mean_SP)),
        kurtosis_over_images=_interval(excess_kurtosis(projected_SB)),
        l_kurtosis_over_images=_interval(l_kurtosis(projected_SB)),
    )


def cosine_matrix(mean_TP: Tensor) -> Tensor:
    """Return the cosines between the mean gradients of T noise levels, as cosine_TT; 0 where a gradient is zero.

    Negative entries are noise levels whose updates undo each other (Hang et al., arXiv 2303.09556, section 3.2).
    """
    norm_T1 = mean_TP.double().norm(dim=1, keepdim=True)
    unit_TP = mean_TP.double() / norm_T1.clamp(min=1e-300)
    cosine_TT: Tensor = unit_TP @ unit_TP.T
    return cosine_TT


def times_denser_at_ends(count: int) -> Tensor:
    """Return t_i = (1 - cos(pi (i + 0.5) / count)) / 2: Chebyshev's points, closest together near 0 and 1."""
    if count < 1:
        raise ConfigError(f"at least one time is needed, got {count}")
    return (1 - torch.cos(torch.pi * (torch.arange(count) + 0.5) / count)) / 2
