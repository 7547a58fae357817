"""Every metric by name: its feature, its distance, and what it is known to see.

Legend: N images, D features, C = 3 colour channels, H and W pixels.

`sees` and `blind` are claims about `corruptions`; the tests hold each metric to them. A metric that sees everything
would tell nothing about what is wrong, so what a metric must not see is as much a part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diffusion.metrics import colour, contiguity, distances, palette, parallelism, spatial

Array = NDArray[np.float64]
Images = NDArray[np.float32]

VERSION = 2
"""Raise it whenever a number of any metric changes: cached nulls of other versions are not used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A feature of images, and a symmetric distance of two sets of features given a scale taken from true images."""

    name: str
    title: str
    features: Callable[[Images], Array]
    scale: Callable[[Array], float]
    distance: Callable[[Array, Array, float], float]
    sees: tuple[str, ...]
    """Damage that it is held to see; the first is the one by whose amount a score is put into words."""
    blind: tuple[str, ...]
    geometric: bool = True
    """Whether repainting an image in two other colours leaves its feature as it is."""
    floor: float = 1e-6
    """The least spread that a null is given, in the metric's unit: below it differences are rounding."""

    def value(self, generated_ND: Array, true_ND: Array, scale: float) -> float:
        """Return the distance in units of the scale; 0 for equal laws up to the bias that the null shows."""
        return self.distance(generated_ND, true_ND, scale)


def _frechet(x_ND: Array, y_ND: Array, scale: float) -> float:
    return distances.frechet_distance(x_ND, y_ND) / scale


def _frechet_at_infinity(x_ND: Array, y_ND: Array, scale: float) -> float:
    return distances.frechet_at_infinity(x_ND, y_ND) / scale


def _wasserstein(x_ND: Array, y_ND: Array, scale: float) -> float:
    return distances.wasserstein_1(x_ND, y_ND) / scale


def _palette(x_ND: Array, y_ND: Array, scale: float) -> float:
    return palette.palette_distance(x_ND, y_ND) / scale


def _repetition(x_ND: Array, y_ND: Array, scale: float) -> float:
    return palette.repetition(x_ND, y_ND) / scale


def _one(true_ND: Array) -> float:
    del true_ND
    return 1.0


METRICS: tuple[Metric, ...] = (
    Metric(
        name="fd_hist_rgb_marg16",
        title="colour: Frechet distance, 3 x 16 marginals",
        features=colour.marginal_histograms,
        scale=distances.total_variance,
        distance=_frechet,
        sees=("pixel_noise", "blur", "tint", "mode_collapse"),
        blind=("pixel_shuffle", "tile_shuffle"),
        geometric=False,
    ),
    Metric(
        name="fd_inf_hist_rgb_marg16",
        title="colour: the same at infinitely many images",
        features=colour.marginal_histograms,
        scale=distances.total_variance,
        distance=_frechet_at_infinity,
        sees=("pixel_noise", "blur", "tint"),
        blind=(),
        geometric=False,
    ),
    Metric(
        name="fd_hist_rgb_joint4",
        title="colour: Frechet distance, 4^3 joint",
        features=colour.joint_histogram,
        scale=distances.total_variance,
        distance=_frechet,
        sees=("pixel_noise", "blur", "mode_collapse"),
        blind=("pixel_shuffle", "tile_shuffle"),
        geometric=False,
    ),
    Metric(
        name="mmd_hist_rgb_joint4",
        title="colour: unbiased RBF-MMD, 4^3 joint",
        features=colour.joint_histogram,
        scale=distances.median_bandwidth,
        distance=distances.rbf_mmd,
        sees=("pixel_noise", "blur", "third_colour"),
        blind=("pixel_shuffle", "tile_shuffle"),
        geometric=False,
    ),
    Metric(
        name="fd_palette",
        title="colour: Frechet distance, pairs of colours",
        features=palette.palette,
        scale=palette.palette_variance,
        distance=_palette,
        sees=("distant_pairs", "tint"),
        blind=("pixel_shuffle", "tile_shuffle"),
        geometric=False,
    ),
    Metric(
        name="w1_nearest_palette",
        title="repetition: distance to the nearest other palettes",
        features=palette.palette,
        scale=_one,
        distance=_repetition,
        sees=("mode_collapse",),
        blind=("pixel_shuffle", "tile_shuffle"),
        geometric=False,
    ),
    Metric(
        name="fd_autocorrelation",
        title="spatial correlation: Frechet distance, radial autocorrelation",
        features=spatial.radial_autocorrelation,
        scale=distances.total_variance,
        distance=_frechet,
        sees=("warp", "blur", "tile_shuffle", "pixel_shuffle", "third_colour"),
        blind=("tint",),
    ),
    Metric(
        name="w1_fourfold_order",
        title="parallelism: fourfold orientation order",
        features=parallelism.fourfold_order,
        scale=_one,
        distance=_wasserstein,
        sees=("warp", "tile_shuffle", "pixel_shuffle"),
        blind=("tint",),
    ),
    Metric(
        name="w1_checkerboard_r2",
        title="parallelism: checkerboard R2",
        features=parallelism.checkerboard_fit,
        scale=_one,
        distance=_wasserstein,
        sees=("warp", "tile_shuffle", "pixel_shuffle", "third_colour"),
        blind=("tint",),
    ),
    Metric(
        name="w1_two_colours",
        title="contiguity: two-colour residual",
        features=contiguity.seen_residual,
        scale=_one,
        distance=_wasserstein,
        sees=("pixel_noise", "blur", "third_colour"),
        blind=("pixel_shuffle", "tile_shuffle", "tint"),
        geometric=False,
    ),
    Metric(
        name="w1_components",
        title="contiguity: number of regions",
        features=contiguity.components,
        scale=_one,
        distance=_wasserstein,
        sees=("pixel_shuffle",),
        blind=("tint",),
    ),
    Metric(
        name="w1_speckle",
        title="contiguity: share of regions of at most 2 px",
        features=contiguity.speckle,
        scale=_one,
        distance=_wasserstein,
        sees=("pixel_shuffle",),
        blind=("tint",),
    ),
    Metric(
        name="w1_perimeter",
        title="contiguity: perimeter density",
        features=contiguity.perimeter,
        scale=_one,
        distance=_wasserstein,
        sees=("pixel_shuffle", "tile_shuffle"),
        blind=("tint",),
    ),
)

REPETITION = "w1_nearest_palette"
"""The metric by which a set that repeats itself is known; no mean over metrics may hide it."""

GEOMETRY = tuple(m for m in METRICS if m.geometric)
"""The metrics that two repainted copies of one image must share."""


def metric(name: str) -> Metric:
    """Return a metric by name; `KeyError` for a name nobody defined."""
    return {m.name: m for m in METRICS}[name]


def all_features(x_NCHW: Images, metrics: tuple[Metric, ...] = METRICS) -> dict[str, Array]:
    """Return the features of each metric; metrics that share a feature share its computation."""
    done: dict[Callable[[Images], Array], Array] = {}
    for m in metrics:
        if m.features not in done:
            done[m.features] = m.features(x_NCHW)
    return {m.name: done[m.features] for m in metrics}
