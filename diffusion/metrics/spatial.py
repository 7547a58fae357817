"""Spatial correlation: how alike two pixels are, given their distance.

Legend: N images, C colour channels, H and W pixels, R integer distances.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Images = NDArray[np.float32]

FLAT = 1e-6
"""Variance below which an image counts as one colour; colours span [-1, 1]."""


def principal_field(x_NCHW: Images) -> Array:
    """Return each image along its own first colour axis, with mean 0 and variance 1, as field_NHW.

    The field of a two-colour image does not depend on which two colours were drawn. Its sign is arbitrary. An image of
    one colour has the field zero.
    """
    count, channels, height, width = x_NCHW.shape
    pixel_NCP = x_NCHW.reshape(count, channels, -1).astype(np.float64)
    pixel_NCP = pixel_NCP - pixel_NCP.mean(axis=2, keepdims=True)
    covariance_NCC = pixel_NCP @ pixel_NCP.transpose(0, 2, 1) / pixel_NCP.shape[2]
    variance_NC, axis_NCC = np.linalg.eigh(covariance_NCC)
    field_NP = np.einsum("nc,ncp->np", axis_NCC[:, :, -1], pixel_NCP)
    largest_N = variance_NC[:, -1]
    flat_N = largest_N < FLAT
    field_NP /= np.sqrt(np.where(flat_N, 1.0, largest_N))[:, None]
    field_NP[flat_N] = 0.0
    return np.asarray(field_NP.reshape(count, height, width))


def radial_autocorrelation(x_NCHW: Images) -> Array:
    """Return the autocorrelation at distances 1 to H/2 px, averaged over directions, as correlation_NR.

    Of the principal field; unbiased, by zero padding and division by the number of pixel pairs at each displacement.
    For a two-phase medium this is the two-point correlation function that materials science scores reconstructions by
    (arXiv 2311.17319). Radial, so that boards of different rotations compare. Zeros for an image of one colour.
    """
    field_NHW = principal_field(x_NCHW)
    _, height, width = field_NHW.shape
    shape = (2 * height, 2 * width)
    power_NHW = np.abs(np.fft.rfft2(field_NHW, s=shape)) ** 2
    summed_NHW = np.fft.irfft2(power_NHW, s=shape)
    overlap_HW = np.fft.irfft2(np.abs(np.fft.rfft2(np.ones((height, width)), s=shape)) ** 2, s=shape)
    row_H = np.fft.fftfreq(2 * height, d=1 / (2 * height))
    column_W = np.fft.fftfreq(2 * width, d=1 / (2 * width))
    distance_HW = np.rint(np.hypot(row_H[:, None], column_W[None])).astype(int)
    longest = min(height, width) // 2
    keep_HW = (distance_HW >= 1) & (distance_HW <= longest)
    correlation_NP = summed_NHW[:, keep_HW] / overlap_HW[keep_HW]
    bins_P = distance_HW[keep_HW] - 1
    share_PR = np.eye(longest)[bins_P] / np.bincount(bins_P, minlength=longest)
    return np.asarray(correlation_NP @ share_PR)
