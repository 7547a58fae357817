"""Palettes: which two colours an image has together, and whether a set repeats itself.

Legend: N and M images, C = 3 colour channels (RGB in [-1, 1]), H and W pixels, D = 6.

Histograms of single channels forget which two colours met in one image; a palette is that pair. A pair has no first
and no second, so each distance takes both orders of every palette, or one order that follows from the colours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffusion.metrics import distances
from diffusion.metrics.contiguity import two_colours

Array = NDArray[np.float64]
Images = NDArray[np.float32]


def palette(x_NCHW: Images) -> Array:
    """Return the mean colours of each image's two regions as colours_ND, the brighter one first.

    An image of one colour has it twice.
    """
    pixel_NCP = x_NCHW.reshape(*x_NCHW.shape[:2], -1).astype(np.float64)
    mask_NP = two_colours(x_NCHW)[0].reshape(len(x_NCHW), -1)
    whole_NC = pixel_NCP.mean(axis=2)
    colours = []
    for region_NP in (mask_NP, ~mask_NP):
        size_N1 = region_NP.sum(axis=1)[:, None]
        summed_NC = np.einsum("ncp,np->nc", pixel_NCP, region_NP.astype(np.float64))
        colours.append(np.where(size_N1 > 0, summed_NC / np.maximum(size_N1, 1), whole_NC))
    first_NC, second_NC = colours
    brighter_N1 = (first_NC.sum(axis=1) >= second_NC.sum(axis=1))[:, None]
    return np.concatenate(
        [np.where(brighter_N1, first_NC, second_NC), np.where(brighter_N1, second_NC, first_NC)], axis=1
    )


def both_orders(palette_ND: Array) -> Array:
    """Return every palette twice, once in each order."""
    half = palette_ND.shape[1] // 2
    return np.concatenate([palette_ND, np.roll(palette_ND, half, axis=1)])


def palette_variance(palette_ND: Array) -> float:
    """Return the total variance of palettes in both orders: the unit of their Frechet distance."""
    return distances.total_variance(both_orders(palette_ND))


def palette_distance(x_ND: Array, y_MD: Array) -> float:
    """Return the Frechet distance of palettes in both orders: it sees which colours meet, and no order."""
    if len(x_ND) < 2 or len(y_MD) < 2:
        # Each palette counts twice below, and one alone would pass for two.
        return distances.frechet_distance(x_ND, y_MD)
    return distances.frechet_distance(both_orders(x_ND), both_orders(y_MD))


def nearest(x_ND: Array) -> Array:
    """Return each row's distance to the nearest other row, as distance_N1; 0 where an image is repeated."""
    squared_NN = ((x_ND[:, None] - x_ND[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squared_NN, np.inf)
    return np.sqrt(squared_NN.min(axis=1))[:, None]


def repetition(x_ND: Array, y_MD: Array) -> float:
    """Return the first Wasserstein distance between both sets' laws of the distance to the nearest other image."""
    if len(x_ND) < 2 or len(y_MD) < 2:
        return distances.wasserstein_1(x_ND, y_MD)
    return distances.wasserstein_1(nearest(x_ND), nearest(y_MD))
