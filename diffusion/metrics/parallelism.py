"""Parallelism: are all edges of an image in two perpendicular directions, and do they repeat?

Legend: N images, C colour channels, H and W pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffusion.metrics.spatial import principal_field

Array = NDArray[np.float64]
Images = NDArray[np.float32]

PADDING = 4
"""Spectra are computed on a grid this many times finer than the image's own."""


def fourfold_order(x_NCHW: Images) -> Array:
    """Return |sum w exp(4 i theta)| / sum w over an image's pixels, as order_N1 in [0, 1].

    theta is the orientation of the structure tensor (gradients at 0.7 px, averaged over 1 px, summed over channels) and
    w its anisotropy. 1 if all edges lie in two perpendicular families, whatever their rotation. Even true boards stay
    below 1 where tiles are few pixels wide, so compare laws, not with 1. Zero for an image of one colour.
    """
    # Imported here: scipy costs a third of a second and training never needs it.
    from scipy.ndimage import gaussian_filter

    precise_NCHW = x_NCHW.astype(np.float64)
    along_x = gaussian_filter(precise_NCHW, (0, 0, 0.7, 0.7), order=(0, 0, 0, 1))
    along_y = gaussian_filter(precise_NCHW, (0, 0, 0.7, 0.7), order=(0, 0, 1, 0))
    products = np.stack([(along_x**2 - along_y**2).sum(axis=1), 2 * (along_x * along_y).sum(axis=1)])
    real_NHW, imaginary_NHW = gaussian_filter(products, (0, 0, 1.0, 1.0))
    doubled_NHW = real_NHW + 1j * imaginary_NHW  # w exp(2 i theta)
    weight_NHW = np.abs(doubled_NHW)
    safe_NHW = np.where(weight_NHW > 0, weight_NHW, 1.0)
    total_N = weight_NHW.sum(axis=(1, 2))
    order_N = np.abs((doubled_NHW**2 / safe_NHW).sum(axis=(1, 2))) / np.where(total_N > 1e-9, total_N, 1.0)
    return np.where(total_N > 1e-9, order_N, 0.0)[:, None]


def checkerboard_fit(x_NCHW: Images) -> Array:
    """Return how much of an image's variance two perpendicular waves explain, as r2_N1 in [0, 1].

    Analysis by synthesis without a learned parameter: take the wave vector k that maximises P(k) + P(k turned by 90
    degrees) in the spectrum of the principal field, and fit sine and cosine at both by least squares. An infinite board
    gives exactly (8 / pi^2)^2 = 0.657; the few tiles of a small image are fitted better. Zero for one colour.
    """
    return np.concatenate([_fit(principal_field(part)) for part in _parts(x_NCHW)])[:, None]


def _parts(x_NCHW: Images, size: int = 64) -> list[Images]:
    # The padded spectra of all images at once would need gigabytes at 64 px.
    return [x_NCHW[start : start + size] for start in range(0, len(x_NCHW), size)]


def _fit(field_NHW: Array) -> Array:
    count, height, width = field_NHW.shape
    side = PADDING * max(height, width)
    power_NKK = np.abs(np.fft.fft2(field_NHW, s=(side, side))) ** 2
    index_K = np.arange(side)
    turned_NKK = power_NKK[:, index_K[None, :], (-index_K[:, None]) % side]
    both_NKK = power_NKK + turned_NKK
    # The widest lobe around the mean is no wave.
    frequency_K = np.abs(np.fft.fftfreq(side, d=1 / PADDING))
    both_NKK[:, np.hypot(frequency_K[:, None], frequency_K[None]) * side / PADDING / PADDING < 0.5] = 0.0
    best_N = both_NKK.reshape(count, -1).argmax(axis=1)
    row_N, column_N = (2 * np.pi * np.fft.fftfreq(side)[i] for i in np.divmod(best_N, side))
    y_HW, x_HW = np.mgrid[:height, :width]
    first_NP = (row_N[:, None] * y_HW.ravel() + column_N[:, None] * x_HW.ravel()).reshape(count, -1)
    second_NP = (column_N[:, None] * y_HW.ravel() - row_N[:, None] * x_HW.ravel()).reshape(count, -1)
    waves_N4P = np.stack([np.cos(first_NP), np.sin(first_NP), np.cos(second_NP), np.sin(second_NP)], axis=1)
    flat_NP = field_NHW.reshape(count, -1)
    moment_N4 = np.einsum("nwp,np->nw", waves_N4P, flat_NP)
    gram_N44 = waves_N4P @ waves_N4P.transpose(0, 2, 1)
    # A wave at the sampling limit has no sine; the pseudo-inverse leaves it out.
    weight_N4 = np.einsum("nvw,nw->nv", np.linalg.pinv(gram_N44, rcond=1e-9, hermitian=True), moment_N4)
    total_N = (flat_NP**2).sum(axis=1)
    explained_N = (weight_N4 * moment_N4).sum(axis=1)
    return np.where(total_N > 0, explained_N / np.where(total_N > 0, total_N, 1.0), 0.0).clip(0, 1)
