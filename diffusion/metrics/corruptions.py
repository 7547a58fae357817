"""Known damage to true boards, to know what a metric sees and what it does not.

Legend: N images, C colour channels, H and W pixels.

Each takes images in [-1, 1], a level that is 0 for no damage, and a numpy generator, and returns damaged copies.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from diffusion.metrics.palette import palette

Images = NDArray[np.float32]
Corruption = Callable[[Images, float, np.random.Generator], Images]


def blur(x_NCHW: Images, level: float, generator: np.random.Generator) -> Images:
    """Blur by a Gaussian of standard deviation `level` px."""
    from scipy.ndimage import gaussian_filter

    del generator
    return np.asarray(gaussian_filter(x_NCHW, (0, 0, level, level), mode="nearest"), dtype=np.float32)


def pixel_noise(x_NCHW: Images, level: float, generator: np.random.Generator) -> Images:
    """Add independent noise of standard deviation `level`."""
    noisy = x_NCHW + level * generator.standard_normal(x_NCHW.shape)
    return np.asarray(noisy.clip(-1, 1), dtype=np.float32)


def tint(x_NCHW: Images, level: float, generator: np.random.Generator) -> Images:
    """Add one random colour of standard deviation `level` to each image. May leave [-1, 1]: clipping would flatten."""
    shift = level * generator.standard_normal((len(x_NCHW), x_NCHW.shape[1], 1, 1))
    return np.asarray(x_NCHW + shift, dtype=np.float32)


def tile_shuffle(x_NCHW: Images, level: float, generator: np.random.Generator) -> Images:
    """Permute a share `level` of the sixteen square tiles of each image."""
    count, channels, height, width = x_NCHW.shape
    tiles = x_NCHW.reshape(count, channels, 4, height // 4, 4, width // 4).transpose(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(count, 16, channels, height // 4, width // 4).copy()
    moved = round(16 * level)
    for i in range(count):
        chosen = generator.permutation(16)[:moved]
        tiles[i, chosen] = tiles[i, np.roll(chosen, 1)]
    tiles = tiles.reshape(count, 4, 4, channels, height // 4, width // 4).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(tiles.reshape(x_NCHW.shape), dtype=np.float32)


def pixel_shuffle(x_NCHW: Images, level: float, generator: np.random.Generator) -> Images:
    """Permute a share `level` of the pixels of each image."""
    count, channels, height, width = x_NCHW.shape
    flat = x_NCHW.reshape(count, channels, -1).copy()
    moved = round(height * width * level)
    for i in range(count):
        chosen = generator.permutation(height * width)[:moved]
        flat[i][:, chosen] = flat[i][:, np.roll(chosen, 1)]
    return np.asarray(flat.reshape(x_NCHW.shape))


def warp(x_NCHW: Images, level: float, generator: np.random.Generator) -> Images:
    """Move pixels along a smooth random field of root mean square `level` tiles (a tile is a quarter of the side)."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    count, channels, height, width = x_NCHW.shape
    y_HW, x_HW = np.mgrid[:height, :width].astype(np.float64)
    warped = np.empty_like(x_NCHW)
    for i in range(count):
        field = gaussian_filter(generator.standard_normal((2, height, width)), (0, height / 8, width / 8))
        field *= level * height / 4 / max(float(np.sqrt((field**2).mean())), 1e-12)
        for c in range(channels):
            # Nearest pixels: interpolation would also blur, and be seen for that.
            warped[i, c] = map_coordinates(x_NCHW[i, c], (y_HW + field[0], x_HW + field[1]), order=0, mode="nearest")
    return warped


def third_colour(x_NCHW: Images, level: float, generator: np.random.Generator) -> Images:
    """Paint a quadrant in a third colour on a share `level` of the images."""
    damaged = x_NCHW.copy()
    height, width = x_NCHW.shape[-2:]
    for i in range(round(len(x_NCHW) * level)):
        colour = generator.uniform(-1, 1, (x_NCHW.shape[1], 1, 1)).astype(np.float32)
        damaged[i, :, : height // 2, : width // 2] = colour
    return damaged


def distant_pairs(x_NCHW: Images, level: float, generator: np.random.Generator) -> Images:
    """Repaint one colour of each image whose two colours are nearer than `level`, in one of another image.

    It leaves the law of single colours nearly as it is, and changes which of them meet.
    """
    colour_N2C = palette(x_NCHW)[:, :-1].reshape(len(x_NCHW), 2, -1)
    repainted = x_NCHW.copy()
    for i, (one_C, other_C) in enumerate(colour_N2C):
        if np.linalg.norm(one_C - other_C) >= level:
            continue
        choice_MC = colour_N2C.reshape(-1, colour_N2C.shape[-1])
        choice_MC = choice_MC[np.linalg.norm(choice_MC - one_C, axis=1) >= level]
        if len(choice_MC):
            pixel_CP = x_NCHW[i].reshape(x_NCHW.shape[1], -1)
            nearer_P = ((pixel_CP - other_C[:, None]) ** 2).sum(0) < ((pixel_CP - one_C[:, None]) ** 2).sum(0)
            shift_C = choice_MC[generator.integers(len(choice_MC))] - other_C
            repainted[i] = (pixel_CP + shift_C[:, None] * nearer_P).reshape(x_NCHW.shape[1:])
    return repainted


def mode_collapse(x_NCHW: Images, level: float, generator: np.random.Generator) -> Images:
    """Keep a share 1 - `level` of the images and repeat them at random."""
    kept = max(1, round(len(x_NCHW) * (1 - level)))
    index = np.concatenate([np.arange(kept), generator.integers(kept, size=len(x_NCHW) - kept)])
    return np.asarray(x_NCHW[index])


CORRUPTIONS: dict[str, Corruption] = {
    "blur": blur,
    "pixel_noise": pixel_noise,
    "tint": tint,
    "tile_shuffle": tile_shuffle,
    "pixel_shuffle": pixel_shuffle,
    "warp": warp,
    "third_colour": third_colour,
    "distant_pairs": distant_pairs,
    "mode_collapse": mode_collapse,
}

LEVELS: dict[str, tuple[float, ...]] = {
    "blur": (0.4, 0.6, 0.9, 1.4),
    "pixel_noise": (0.05, 0.1, 0.2, 0.4),
    "tint": (0.2, 0.35, 0.6, 1.0),
    "tile_shuffle": (0.2, 0.4, 0.6, 1.0),
    "pixel_shuffle": (0.02, 0.05, 0.1, 0.3),
    "warp": (0.1, 0.2, 0.4, 0.8),
    "third_colour": (0.1, 0.25, 0.5, 1.0),
    "distant_pairs": (0.8, 1.1, 1.4, 1.7),
    "mode_collapse": (0.5, 0.75, 0.9, 0.97),
}
"""Four rising levels of each damage, from near the threshold to plain to see."""
