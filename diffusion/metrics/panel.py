"""The panel: every metric of one set of images, each as value, null mean, null spread and z; and its picture.

Legend: N images, C = 3 colour channels, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from diffusion.data import ImageSource
from diffusion.errors import ConfigError
from diffusion.metrics.equivalents import ladders
from diffusion.metrics.nulls import null_distributions, reference
from diffusion.metrics.registry import METRICS, REPETITION, Metric, all_features


class Score(NamedTuple):
    """One metric of one set of images."""

    metric: str
    resolution: int  # pixels a side
    images: int
    value: float
    null_mean: float
    null_spread: float  # at least the metric's floor
    z: float  # (value - null mean) / null spread; below about 3 the images cannot be told from true ones
    equivalent: str  # damage to true images of this value, as "warp 0.31"; "none" below z = 3, "-" if unknown


def overall(z: Mapping[str, float]) -> float:
    """Return one number for a panel: the geometric mean of max(|z|, 1), but no less than |z| of repetition.

    It is 1 where nothing can be told from true draws. A few true images repeated have true colours and true geometry,
    each alone, and the mean would praise them.
    """
    mean = math.exp(sum(math.log(max(abs(value), 1.0)) for value in z.values()) / len(z))
    return max(mean, abs(z.get(REPETITION, 0.0)))


def panel(
    x_NCHW: Tensor,
    source: ImageSource,
    *,
    nulls: int = 50,
    cache: Path | None = None,
    metrics: tuple[Metric, ...] = METRICS,
) -> list[Score]:
    """Score images in [-1, 1] against the law of `source` at their own resolution and number.

    z is an order of magnitude: its spread is estimated from `nulls` draws (a relative error of 1 / sqrt(2 nulls)).
    Raises `ConfigError` for images that are not square or fewer than eight.
    """
    if x_NCHW.dim() != 4 or x_NCHW.shape[-1] != x_NCHW.shape[-2] or len(x_NCHW) < 8:
        raise ConfigError(f"a panel needs at least eight square images, got shape {tuple(x_NCHW.shape)}")
    images, resolution = len(x_NCHW), x_NCHW.shape[-1]
    null = null_distributions(source, resolution, images, nulls=nulls, cache=cache, metrics=metrics)
    against = reference(source, resolution, images, metrics)
    rungs = ladders(source, resolution, images, nulls=nulls, cache=cache, metrics=metrics)
    features = all_features(x_NCHW.detach().cpu().float().numpy(), metrics)
    scores = []
    for m in metrics:
        value = m.value(features[m.name], *against[m.name])
        mean, spread = null[m.name].mean, max(null[m.name].spread, m.floor)
        z = (value - mean) / spread
        words = "none" if z < 3 else rungs[m.name].equivalent(value).words() if m.name in rungs else "-"
        scores.append(Score(m.name, resolution, images, value, mean, spread, z, words))
    return scores


def panel_png(path: Path, panels: Mapping[str, Sequence[Score]]) -> None:
    """Draw z of every metric for several panels (name -> scores) on one symmetric logarithmic axis."""
    # Imported here: a trainer never draws.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    titles = {m.name: m.title for m in METRICS}
    names = list(dict.fromkeys(score.metric for scores in panels.values() for score in scores))
    figure = Figure(figsize=(9, 0.5 * len(names) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    height = 0.8 / max(1, len(panels))
    for i, (label, scores) in enumerate(panels.items()):
        by_name = {score.metric: score for score in scores}
        offsets = [names.index(name) + (i + 0.5) * height - 0.4 for name in by_name]
        axes.barh(offsets, [score.z for score in by_name.values()], height=height * 0.9, label=label)
    axes.axvspan(-3, 3, color="0.85", zorder=0, label="true draws, |z| < 3")
    axes.set_xscale("symlog", linthresh=3)
    axes.set_yticks(range(len(names)), [titles.get(name, name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("z against independent true draws of the same number and resolution")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
