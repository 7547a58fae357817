"""Distances between two sets of feature vectors, in float64.

Legend: N and M images, D features. The first set is the generated one, the second the true one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffusion.errors import ConfigError

Array = NDArray[np.float64]


def _checked(x_ND: Array, y_MD: Array) -> tuple[Array, Array]:
    if x_ND.ndim != 2 or y_MD.ndim != 2 or x_ND.shape[1] != y_MD.shape[1]:
        raise ConfigError(f"features of shapes {x_ND.shape} and {y_MD.shape} cannot be compared")
    if min(len(x_ND), len(y_MD)) < 2:
        raise ConfigError("a distance between distributions needs at least two images on each side")
    return x_ND.astype(np.float64), y_MD.astype(np.float64)


def frechet_distance(x_ND: Array, y_MD: Array) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Dowson & Landau 1982), with unbiased covariances.

    The trace of the root is the nuclear norm of the product of the centred data matrices. That needs no matrix root,
    so it is exact for singular covariances (histograms always have them) and needs no ridge, which would bias it.
    Never negative, and zero for equal sets up to rounding.
    """
    x_ND, y_MD = _checked(x_ND, y_MD)
    mean_x_D, mean_y_D = x_ND.mean(axis=0), y_MD.mean(axis=0)
    # R factors have the covariances of the data and at most D rows.
    root_x: Array = np.linalg.qr((x_ND - mean_x_D) / np.sqrt(len(x_ND) - 1)).R
    root_y: Array = np.linalg.qr((y_MD - mean_y_D) / np.sqrt(len(y_MD) - 1)).R
    overlap = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    shift = float(((mean_x_D - mean_y_D) ** 2).sum())
    return max(0.0, shift + float((root_x**2).sum() + (root_y**2).sum() - 2 * overlap))


def total_variance(x_ND: Array) -> float:
    """Return the trace of the covariance: the natural unit of a Frechet distance. 1 where there is no variance."""
    return float(x_ND.var(axis=0, ddof=1).sum()) or 1.0


def frechet_at_infinity(x_ND: Array, y_MD: Array, *, sizes: int = 8, seed: int = 0) -> float:
    """Extrapolate the Frechet distance to infinitely many images (Chong & Forsyth, arXiv 1911.07023, section 4).

    The intercept of a line through the distances of `sizes` random subsets of N/4 to N images over 1/N. It is unbiased
    to first order, so it may be slightly negative.
    """
    x_ND, y_MD = _checked(x_ND, y_MD)
    most = min(len(x_ND), len(y_MD))
    if most < 8:
        raise ConfigError(f"extrapolation needs at least eight images on each side, got {most}")
    generator = np.random.default_rng(seed)
    counts = np.unique(np.linspace(most // 4, most, sizes).round().astype(int))
    values = [
        frechet_distance(x_ND[generator.permutation(len(x_ND))[:n]], y_MD[generator.permutation(len(y_MD))[:n]])
        for n in counts
    ]
    return float(np.polyfit(1 / counts, values, 1)[1])


def median_bandwidth(y_MD: Array) -> float:
    """Return the median distance between different true images: the kernel's only constant. 1 if they are all equal."""
    squared = _squared_distances(y_MD, y_MD)[np.triu_indices(len(y_MD), k=1)]
    return float(np.sqrt(np.median(squared))) or 1.0


def _squared_distances(x_ND: Array, y_MD: Array) -> Array:
    cross = x_ND @ y_MD.T
    squared: Array = (x_ND**2).sum(1)[:, None] + (y_MD**2).sum(1)[None] - 2 * cross
    return squared.clip(min=0)


def rbf_mmd(x_ND: Array, y_MD: Array, bandwidth: float) -> float:
    """Return the unbiased squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) of a Gaussian kernel.

    Centred at zero for equal laws, so it may be negative and is never clipped.
    """
    x_ND, y_MD = _checked(x_ND, y_MD)
    n, m = len(x_ND), len(y_MD)
    scale = -0.5 / bandwidth**2
    within_x = np.exp(scale * _squared_distances(x_ND, x_ND))
    within_y = np.exp(scale * _squared_distances(y_MD, y_MD))
    across = np.exp(scale * _squared_distances(x_ND, y_MD))
    return float(
        (within_x.sum() - np.trace(within_x)) / (n * (n - 1))
        + (within_y.sum() - np.trace(within_y)) / (m * (m - 1))
        - 2 * across.mean()
    )


def permutation_p_value(x_ND: Array, y_MD: Array, bandwidth: float, *, permutations: int = 500, seed: int = 0) -> float:
    """Return the share of random relabellings whose MMD is at least the observed one (counting the observed)."""
    pooled = np.concatenate(_checked(x_ND, y_MD))
    n, total = len(x_ND), len(pooled)
    kernel = np.exp(-0.5 / bandwidth**2 * _squared_distances(pooled, pooled))
    np.fill_diagonal(kernel, 0)
    generator = np.random.default_rng(seed)

    def statistic(first: NDArray[np.intp]) -> float:
        sign = np.full(total, 0.0)
        sign[first] = 1.0
        inside, cross_sum = sign @ kernel @ sign, sign @ kernel @ (1 - sign)
        outside = kernel.sum() - inside - 2 * cross_sum
        m = total - n
        return float(inside / (n * (n - 1)) + outside / (m * (m - 1)) - 2 * cross_sum / (n * m))

    observed = statistic(np.arange(n))
    reached = sum(statistic(generator.permutation(total)[:n]) >= observed - 1e-15 for _ in range(permutations))
    return (1 + reached) / (1 + permutations)


def wasserstein_1(x_ND: Array, y_MD: Array) -> float:
    """Return the mean over features of the first Wasserstein distance between their one-dimensional laws."""
    # Imported here: scipy costs a third of a second and training never needs it.
    from scipy.stats import wasserstein_distance

    x_ND, y_MD = _checked(x_ND, y_MD)
    return float(np.mean([wasserstein_distance(x_N, y_M) for x_N, y_M in zip(x_ND.T, y_MD.T, strict=True)]))
