"""Palettes: which two colours an image has together, and whether a set repeats itself.

Legend: N and M images, C = 3 colour channels (RGB in [-1, 1]), H and W pixels, D = 2 C + 1.

Histograms of single channels forget which two colours met in one image; a palette is that pair, and how far apart they
are: which pairs are missing shows in that distance long before it shows in second moments. A pair has no first and no
second, so distances take both orders of every palette, or one order that follows from the colours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffusion.metrics import distances
from diffusion.metrics.contiguity import two_colours

Array = NDArray[np.float64]
Images = NDArray[np.float32]


def palette(x_NCHW: Images) -> Array:
    """Return the mean colours of each image's two regions, the brighter one first, and their distance, as palette_ND.

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
    bright_NC, dark_NC = np.where(brighter_N1, first_NC, second_NC), np.where(brighter_N1, second_NC, first_NC)
    apart_N1 = np.linalg.norm(bright_NC - dark_NC, axis=1)[:, None]
    return np.concatenate([bright_NC, dark_NC, apart_N1], axis=1)


def both_orders(palette_ND: Array) -> Array:
    """Return every palette twice, once in each order."""
    first_NC, second_NC, apart_N1 = np.split(palette_ND, [palette_ND.shape[1] // 2, palette_ND.shape[1] - 1], axis=1)
    return np.concatenate([palette_ND, np.concatenate([second_NC, first_NC, apart_N1], axis=1)])


def palette_variance(palette_ND: Array) -> float:
    """Return the total variance of palettes in both orders: the unit of their Frechet distance."""
    return distances.total_variance(both_orders(palette_ND))


def palette_distance(x_ND: Array, y_MD: Array) -> float:
    """Return the Frechet distance of palettes in both orders: it sees which colours meet, and no order."""
    if len(x_ND) < 2 or len(y_MD) < 2:
        # Each palette counts twice below, and one alone would pass for two.
        return distances.frechet_distance(x_ND, y_MD)
    return distances.frechet_distance(both_orders(x_ND), both_orders(y_MD))


NEIGHBOURS = 16


def neighbourhood(x_ND: Array) -> Array:
    """Return each row's mean distance to its nearest `NEIGHBOURS` other rows, in units of the set's spread.

    It is 0 where an image is repeated that often, and falls with every repetition on the way there. As distance_N1.
    """
    squared_NN = ((x_ND[:, None] - x_ND[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squared_NN, np.inf)
    count = min(NEIGHBOURS, len(x_ND) - 1)
    nearest_NK = np.partition(squared_NN, count - 1, axis=1)[:, :count]
    return np.asarray(np.sqrt(nearest_NK / distances.total_variance(x_ND)).mean(axis=1)[:, None])


def repetition(x_ND: Array, y_MD: Array) -> float:
    """Return the first Wasserstein distance between both sets' laws of `neighbourhood`."""
    if len(x_ND) < 2 or len(y_MD) < 2:
        return distances.wasserstein_1(x_ND, y_MD)
    return distances.wasserstein_1(neighbourhood(x_ND), neighbourhood(y_MD))
