"""Contiguity: are there two colours, in few whole regions with short borders?

Legend: N images, C colour channels, H and W pixels, P = H W.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffusion.metrics.spatial import FLAT, principal_field

Array = NDArray[np.float64]
Images = NDArray[np.float32]


def two_colours(x_NCHW: Images, *, rounds: int = 5) -> tuple[NDArray[np.bool_], Array]:
    """Split each image's pixels into two colours by 2-means; return (mask_NHW, residual_N).

    Starts from the sign of the principal field, so it is deterministic. The residual is the variance left within the
    two colours over the total variance: 0 for a perfect two-colour image and, by definition, for one colour.
    """
    count, channels, height, width = x_NCHW.shape
    pixel_NCP = x_NCHW.reshape(count, channels, -1).astype(np.float64)
    mask_NP = (principal_field(x_NCHW) > 0).reshape(count, -1)
    for _ in range(rounds):
        first_NC1, second_NC1 = _centre(pixel_NCP, mask_NP), _centre(pixel_NCP, ~mask_NP)
        mask_NP = ((pixel_NCP - first_NC1) ** 2).sum(1) < ((pixel_NCP - second_NC1) ** 2).sum(1)
    first_NC1, second_NC1 = _centre(pixel_NCP, mask_NP), _centre(pixel_NCP, ~mask_NP)
    nearest_NP = np.where(mask_NP, ((pixel_NCP - first_NC1) ** 2).sum(1), ((pixel_NCP - second_NC1) ** 2).sum(1))
    total_N = pixel_NCP.var(axis=2).sum(axis=1)
    flat_N = total_N < FLAT
    residual_N = np.where(flat_N, 0.0, nearest_NP.mean(axis=1) / np.where(flat_N, 1.0, total_N))
    return mask_NP.reshape(count, height, width), residual_N


def _centre(pixel_NCP: Array, mask_NP: NDArray[np.bool_]) -> Array:
    size_N = mask_NP.sum(axis=1)
    summed_NC = np.einsum("ncp,np->nc", pixel_NCP, mask_NP.astype(np.float64))
    mean_NC = np.where(size_N[:, None] > 0, summed_NC / np.maximum(size_N, 1)[:, None], pixel_NCP.mean(axis=2))
    return np.asarray(mean_NC)[:, :, None]


def residual(x_NCHW: Images) -> Array:
    """Return the two-colour residual of each image, as share_N1 in [0, 1]."""
    return two_colours(x_NCHW)[1][:, None]


INSTRUMENT = 0.02
"""Deviation to which `seen_residual` knows a colour: two and a half of the 256 steps that a screen has for [-1, 1]."""


def seen_residual(x_NCHW: Images) -> Array:
    """Return the residual of each image through an instrument of deviation `INSTRUMENT`, as share_N1 in [0, 1].

    Hard-edged boards have a residual of exactly 0, so that any other would be infinitely many deviations away. The
    instrument's own variance, added to both parts of the ratio, gives true boards a law: those of less contrast have
    more residual. An image of one colour has none, by definition.
    """
    residual_N = two_colours(x_NCHW)[1]
    total_N = x_NCHW.astype(np.float64).var(axis=(2, 3)).sum(axis=1)
    own = x_NCHW.shape[1] * INSTRUMENT**2
    return np.where(total_N < FLAT, 0.0, (residual_N * total_N + own) / (total_N + own))[:, None]


def _component_sizes(mask_NHW: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    # Imported here: scipy costs a third of a second and training never needs it.
    from scipy.ndimage import label

    # Neighbours up, down, left and right; never across images.
    structure = np.zeros((3, 3, 3), dtype=int)
    structure[1] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
    sizes: list[list[NDArray[np.int64]]] = [[] for _ in mask_NHW]
    for phase_NHW in (mask_NHW, ~mask_NHW):
        labels_NHW, _ = label(phase_NHW, structure)
        for i, labels_HW in enumerate(labels_NHW):
            _, counts = np.unique(labels_HW[labels_HW > 0], return_counts=True)
            sizes[i].append(counts)
    return [np.concatenate(pair) for pair in sizes]


def components(x_NCHW: Images) -> Array:
    """Return the number of 4-connected regions of either colour in each image, as count_N1.

    With four neighbours for both colours a perfect board falls apart at its corners into one region a tile: wanted.
    """
    mask_NHW, _ = two_colours(x_NCHW)
    return np.array([[float(len(sizes))] for sizes in _component_sizes(mask_NHW)])


def speckle(x_NCHW: Images) -> Array:
    """Return the share of regions of at most two pixels in each image, as share_N1 in [0, 1]."""
    mask_NHW, _ = two_colours(x_NCHW)
    return np.array([[float((sizes <= 2).mean())] for sizes in _component_sizes(mask_NHW)])


def perimeter(x_NCHW: Images) -> Array:
    """Return the number of neighbouring pixels of different colour per pixel, as density_N1 in [0, 2]."""
    mask_NHW, _ = two_colours(x_NCHW)
    across = (mask_NHW[:, 1:] != mask_NHW[:, :-1]).sum(axis=(1, 2))
    along = (mask_NHW[:, :, 1:] != mask_NHW[:, :, :-1]).sum(axis=(1, 2))
    pixels = mask_NHW.shape[1] * mask_NHW.shape[2]
    return np.asarray((across + along) / pixels, dtype=np.float64)[:, None]
