"""Colour: histograms of each image, which forget where a pixel is.

Legend: N images, C = 3 colour channels (RGB in [-1, 1]), H and W pixels, D bins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Images = NDArray[np.float32]


def _bins(x_NCHW: Images, bins: int) -> NDArray[np.int64]:
    return np.clip(((x_NCHW + 1) * (bins / 2)).astype(np.int64), 0, bins - 1)


def _count(index_NP: NDArray[np.int64], bins: int) -> Array:
    images, points = index_NP.shape
    offset = np.arange(images)[:, None] * bins
    counts = np.bincount((index_NP + offset).ravel(), minlength=images * bins)
    return np.asarray(counts.reshape(images, bins) / points)


def marginal_histograms(x_NCHW: Images, *, bins: int = 16) -> Array:
    """Return the histograms of the three channels side by side, as share_ND with D = 3 * bins; each third sums to 1."""
    index_NCP = _bins(x_NCHW, bins).reshape(*x_NCHW.shape[:2], -1)
    return np.concatenate([_count(index_NCP[:, c], bins) for c in range(index_NCP.shape[1])], axis=1)


def joint_histogram(x_NCHW: Images, *, bins: int = 4) -> Array:
    """Return the histogram over bins^3 colours, as share_ND; rows sum to 1."""
    index_NCP = _bins(x_NCHW, bins).reshape(*x_NCHW.shape[:2], -1)
    colour_NP = (index_NCP[:, 0] * bins + index_NCP[:, 1]) * bins + index_NCP[:, 2]
    return _count(colour_NP, bins**3)
