"""Gradients of single images at one noise level: their size, their noise and the shape of their law.

Legend: B images, T noise levels, C colour channels, H and W pixels, P parameters, S values.

With g_i the gradient of image i and G its expectation: tr(Sigma) is the summed variance of g_i, and |G|^2 / tr(Sigma) =
1 / B_simple is the reciprocal of the batch size at which noise and signal are equal (McCandlish et al., arXiv
1812.06162, eq. 2.9). It is finite where there is no signal, so it is what is reported. Everything follows from the
inner products of different images' gradients (`pairs`), so no image's own noise is taken for signal.

Two kurtoses are reported under their own names: over the parameters of the mean gradient, and over images of their
projection on the mean gradient of the *other* images. Moment estimates of kurtosis are unreliable for heavy tails, so
each has a robust twin, L-kurtosis (Hosking 1990; 0.1226 for a normal law).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.errors import ConfigError
from diffusion.objective import DenoisingObjective
from diffusion.pairs import LEAST_IMAGES, Interval, PairMean, not_rejected, pair_mean
from diffusion.spans import Layout

NORMAL_L_KURTOSIS = 0.1226


class GradientStatistics(NamedTuple):
    """What the gradients at one noise level look like."""

    loss_mean: float
    loss_spatial_spread: Interval  # standard deviation over pixels of the expected loss map, over its mean
    mean_gradient_norm: Interval  # |G|
    single_gradient_norm: float  # mean of |g_i|
    gradient_variance: float  # tr(Sigma), unbiased
    signal_share: Interval  # |G|^2 / tr(Sigma) = 1 / B_simple; where it holds 0, no signal can be told from noise
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


def gram(g_BP: Tensor, other_BP: Tensor | None = None) -> Tensor:
    """Return the inner products of each pair of gradients as k_BB, in float64."""
    other_BP = g_BP if other_BP is None else other_BP
    k_BB: Tensor = g_BP.double() @ other_BP.double().mT
    return k_BB


def squared_norm(k_BB: Tensor) -> PairMean:
    """Return |G|^2 from the Gram matrix of single gradients, without bias; negative where the signal is too small."""
    return pair_mean(k_BB)


def signal_share(k_BB: Tensor) -> Interval:
    """Return |G|^2 / tr(Sigma) = 1 / B_simple from the Gram matrix of single gradients.

    The interval is that of a ratio of two means over pairs, linearised at the estimate. It is too short where the noise
    is of very uneven size from image to image, since few images then tell little of tr(Sigma): 0.91 to 0.93 of them
    hold the truth (docs/lab.md).
    """
    own_B = k_BB.double().diagonal()
    signal = squared_norm(k_BB).value
    trace = float(own_B.mean()) - signal
    if trace <= 0:
        # All images have one gradient: there is no noise to compare the signal with.
        return Interval(math.inf, math.inf, math.inf) if signal > 0 else Interval(0.0, 0.0, 0.0)
    share = signal / trace
    noise_BB = (own_B[:, None] + own_B[None]) / 2 - k_BB
    reach = pair_mean(k_BB - share * noise_BB).interval(trace)
    return Interval(share, share + reach.low - reach.estimate, share + reach.high - reach.estimate)


def norm_of(squared: Interval) -> Interval:
    """Return the root of an estimate of a square; what is negative by chance becomes 0."""
    return Interval(*(math.sqrt(max(0.0, value)) for value in squared))


def spatial_spread(map_BHW: Tensor) -> Interval:
    """Return the deviation over pixels of the expected loss map, over its mean, free of the images' own noise.

    The interval is that of the deviation; the mean is taken as known.
    """
    map_BP = map_BHW.double().flatten(1)
    mean = float(map_BP.mean())
    centred_BP = map_BP - map_BP.mean(dim=1, keepdim=True)
    squared = pair_mean(gram(centred_BP) / map_BP.shape[1])
    return norm_of(squared.interval(max(mean**2, 1e-300)))


def left_out_projections(k_BB: Tensor) -> Tensor:
    """Return g_i on the unit mean gradient of all other images, as projected_B; 0 where that mean vanishes."""
    k_BB = k_BB.double()
    own_B, row_B = k_BB.diagonal(), k_BB.sum(dim=1)
    others_B = (k_BB.sum() - 2 * row_B + own_B).clamp(min=0).sqrt()
    return torch.where(others_B > 0, (row_B - own_B) / others_B.clamp(min=1e-300), 0.0)


def _jackknife(statistic: Callable[[Tensor], Tensor], whole: Tensor, left_out: list[Tensor]) -> Interval:
    """Return a statistic of the whole with the 95 % interval of its delete-one jackknife (Efron & Stein 1981)."""
    count = len(left_out)
    values_B = torch.stack([statistic(part) for part in left_out])
    spread = float((values_B - values_B.mean()).square().sum())
    return PairMean(float(statistic(whole)), math.sqrt((count - 1) / count * spread), count - 1).interval()


def gradient_statistics(g_BP: Tensor, map_BHW: Tensor) -> GradientStatistics:
    """Summarise single-image gradients. Needs at least five images: four are left when one is left out."""
    count = len(g_BP)
    if count <= LEAST_IMAGES:
        raise ConfigError(f"statistics need more than {LEAST_IMAGES} images, got {count}")
    g_BP = g_BP.double()
    k_BB = gram(g_BP)
    signal = squared_norm(k_BB)
    own_B = k_BB.diagonal()
    mean_P = g_BP.mean(dim=0)
    means = [(count * mean_P - g_P) / (count - 1) for g_P in g_BP]
    projected_B = left_out_projections(k_BB)
    projected = [projected_B[torch.arange(count) != i] for i in range(count)]
    return GradientStatistics(
        loss_mean=float(map_BHW.double().mean()),
        loss_spatial_spread=spatial_spread(map_BHW),
        mean_gradient_norm=norm_of(signal.interval()),
        single_gradient_norm=float(own_B.sqrt().mean()),
        gradient_variance=float(own_B.mean()) - signal.value,
        signal_share=signal_share(k_BB),
        kurtosis_over_parameters=_jackknife(excess_kurtosis, mean_P, means),
        l_kurtosis_over_parameters=_jackknife(l_kurtosis, mean_P, means),
        kurtosis_over_images=_jackknife(excess_kurtosis, projected_B, projected),
        l_kurtosis_over_images=_jackknife(l_kurtosis, projected_B, projected),
    )


def cosine(g_BP: Tensor, other_BP: Tensor) -> Interval | None:
    """Return the cosine between the expected gradients of two noise levels, or None where nothing is known of it.

    Both must be of the same images in the same order. The two sides of each inner product come from different images;
    over all pairs that is the mean over every way to cut the images into disjoint halves. Negative cosines are noise
    levels whose updates undo each other (Hang et al., arXiv 2303.09556, section 3.2). The interval holds all cosines
    that a test does not reject; where that is everything from -1 to 1, or a squared norm comes out negative, nothing is
    known. Cosines are not shown by whether the norms can be told from 0: where that is a matter of luck, luck would
    choose the trials in which both norms are overestimated, and their intervals hold the truth too rarely.
    """
    k_BB, other_BB, across_BB = gram(g_BP), gram(other_BP), gram(g_BP, other_BP)
    return cosine_of(k_BB, other_BB, across_BB)


def cosine_of(k_BB: Tensor, other_BB: Tensor, across_BB: Tensor) -> Interval | None:
    """Return `cosine` from the Gram matrices of both levels and of the one with the other."""
    squares = (squared_norm(k_BB), squared_norm(other_BB))
    if min(square.value for square in squares) <= 0:
        return None
    norm = math.sqrt(squares[0].value * squares[1].value)
    value = max(-1.0, min(1.0, pair_mean(across_BB).value / norm))
    # The product of the norms, linearised where they are: one mean over pairs again.
    norms_BB = (k_BB / squares[0].value + other_BB / squares[1].value) / 2
    interval = not_rejected(lambda one: pair_mean(across_BB / norm - one * norms_BB), value, least=-1.0, most=1.0)
    return None if interval.high - interval.low >= 2 else interval


def cosine_matrix(g_TBP: list[Tensor]) -> list[list[Interval | None]]:
    """Return the cosines between the gradients of T noise levels; None where one cannot be told from 0."""
    grams = [gram(g_BP) for g_BP in g_TBP]
    rows: list[list[Interval | None]] = [[None] * len(g_TBP) for _ in g_TBP]
    for i, g_BP in enumerate(g_TBP):
        for j in range(i + 1):
            across_BB = grams[i] if i == j else gram(g_BP, g_TBP[j])
            rows[i][j] = rows[j][i] = cosine_of(grams[i], grams[j], across_BB)
    return rows
