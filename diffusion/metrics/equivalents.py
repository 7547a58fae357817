"""What a score is worth in words: true images with how much of a known damage have the same value of the metric?

Legend: N images, C colour channels, H and W pixels.

z of hundreds has no scale: "as warp 0.3" has one. Every metric has a damage of its own (the first that it is held to
see); true images with rising amounts of it are measured once, and a value is looked up between them.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion.data import ImageSource
from diffusion.metrics.corruptions import CORRUPTIONS, LEVELS
from diffusion.metrics.nulls import NullKey, null_distributions, reference, true_images
from diffusion.metrics.registry import METRICS, Metric

DRAW = 1_000_003
"""The draw of true images that is damaged; no null uses it."""


class Equivalent(NamedTuple):
    """An amount of damage."""

    damage: str
    level: float
    beyond: bool  # more than the largest amount that was tried, which `level` is then

    def words(self) -> str:
        """Return it as people say it, such as 'warp 0.31'; 'none' for no damage."""
        if self.level == 0:
            return "none"
        return f"{'> ' if self.beyond else ''}{self.damage} {self.level:.2g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ladder:
    """The values of one metric at rising amounts of its damage, from none up."""

    damage: str
    levels: tuple[float, ...]
    values: tuple[float, ...]

    def equivalent(self, value: float) -> Equivalent:
        """Return the amount of damage that has this value, between the steps of the ladder by a straight line."""
        rising = np.maximum.accumulate(self.values)
        if value <= rising[0]:
            return Equivalent(self.damage, 0.0, False)
        if value > rising[-1]:
            return Equivalent(self.damage, self.levels[-1], True)
        return Equivalent(self.damage, float(np.interp(value, rising, self.levels)), False)


def _steps(damage: str) -> tuple[float, ...]:
    levels = LEVELS[damage]
    return (0.0, levels[0] / 2, *levels)


def ladders(
    source: ImageSource,
    resolution: int,
    images: int,
    *,
    nulls: int = 50,
    cache: Path | None = None,
    metrics: tuple[Metric, ...] = METRICS,
) -> dict[str, Ladder]:
    """Return the ladder of every metric that is held to see something, from `cache` where it was made before.

    The ladder starts at the mean of the null. A file that cannot be read is made again.
    """
    key = NullKey(source=source.name, resolution=resolution, images=images, nulls=nulls)
    path = None if cache is None else cache / key.filename().replace("null-", "ladder-")
    found = {} if path is None else _stored(path)
    missing = tuple(m for m in metrics if m.sees and m.name not in found)
    if not missing:
        return found
    null = null_distributions(source, resolution, images, nulls=nulls, cache=cache, metrics=missing)
    against = reference(source, resolution, images, missing)
    true_NCHW = true_images(source, resolution, images, DRAW)
    values: dict[str, list[float]] = {m.name: [null[m.name].mean] for m in missing}
    for damage in dict.fromkeys(m.sees[0] for m in missing):
        mine = [m for m in missing if m.sees[0] == damage]
        for level in _steps(damage)[1:]:
            damaged_NCHW = CORRUPTIONS[damage](true_NCHW, level, np.random.default_rng(0))
            features = {feature: feature(damaged_NCHW) for feature in {m.features for m in mine}}
            for m in mine:
                values[m.name].append(m.value(features[m.features], *against[m.name]))
    found |= {m.name: Ladder(damage=m.sees[0], levels=_steps(m.sees[0]), values=tuple(values[m.name])) for m in missing}
    if path is not None:
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps({name: asdict(one) for name, one in found.items()}), encoding="utf-8")
        draft.replace(path)
    return found


def _stored(path: Path) -> dict[str, Ladder]:
    """Return what a cache file holds; nothing where it is damaged, which costs time only."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: Ladder(damage=one["damage"], levels=tuple(one["levels"]), values=tuple(one["values"]))
            for name, one in stored.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
