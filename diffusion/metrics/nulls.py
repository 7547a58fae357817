"""What each metric says about true images: the mean and spread that a score is judged by, cached as JSON.

The reference set is one fixed draw of N true images; each null value is the distance of another independent draw of N
to it. Null and score therefore have the same N, the same resolution and the same bias.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffusion.data import ImageSource
from diffusion.errors import ConfigError
from diffusion.metrics.registry import METRICS, VERSION, Metric, all_features

REFERENCE_SEED = 20260101
"""Far from the seeds people choose, so that no training run sees the reference images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NullKey:
    """Everything that null values depend on."""

    source: str
    resolution: int
    images: int
    nulls: int
    version: int = VERSION

    def filename(self) -> str:
        """Return a file name that differs whenever a field does."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]
        return f"null-{self.resolution}px-{self.images}n-{digest}.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Null:
    """The law of one metric's value on true images."""

    mean: float
    spread: float  # standard deviation
    values: tuple[float, ...]


def true_images(source: ImageSource, resolution: int, images: int, draw: int) -> NDArray[np.float32]:
    """Return the reference set (draw 0) or the draw-th independent null set, as x_NCHW."""
    x_NCHW: NDArray[np.float32] = source.draw(images, resolution, seed=REFERENCE_SEED, step=draw).numpy()
    return x_NCHW


def reference(
    source: ImageSource, resolution: int, images: int, metrics: tuple[Metric, ...] = METRICS
) -> dict[str, tuple[NDArray[np.float64], float]]:
    """Return the reference features and scale of each metric."""
    features = all_features(true_images(source, resolution, images, 0), metrics)
    return {m.name: (features[m.name], m.scale(features[m.name])) for m in metrics}


def _compute(key: NullKey, source: ImageSource, metrics: tuple[Metric, ...]) -> dict[str, Null]:
    against = reference(source, key.resolution, key.images, metrics)
    values: dict[str, list[float]] = {m.name: [] for m in metrics}
    for draw in range(1, key.nulls + 1):
        features = all_features(true_images(source, key.resolution, key.images, draw), metrics)
        for m in metrics:
            values[m.name].append(m.value(features[m.name], *against[m.name]))
    return {
        name: Null(mean=float(np.mean(v)), spread=float(np.std(v, ddof=1)), values=tuple(v))
        for name, v in values.items()
    }


def null_distributions(
    source: ImageSource,
    resolution: int,
    images: int,
    *,
    nulls: int = 50,
    cache: Path | None = None,
    metrics: tuple[Metric, ...] = METRICS,
) -> dict[str, Null]:
    """Return the null of every metric, from `cache` where it was computed before.

    A file that cannot be read, or belongs to another key, is computed anew and replaced; a metric that is younger than
    the file is added to it. Raises `ConfigError` for fewer than two nulls or eight images.
    """
    if nulls < 2 or images < 8:
        raise ConfigError(f"a null needs at least two draws of eight images, got {nulls} of {images}")
    key = NullKey(source=source.name, resolution=resolution, images=images, nulls=nulls)
    path = None if cache is None else cache / key.filename()
    found = {} if path is None else _stored(path, key)
    missing = tuple(m for m in metrics if m.name not in found)
    if not missing:
        return found
    found |= _compute(key, source, missing)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"key": asdict(key), "nulls": {name: asdict(n) for name, n in found.items()}}
        # Written aside and renamed: two runs may share a cache.
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(json.dumps(document, indent=1), encoding="utf-8")
        draft.replace(path)
    return found


def _stored(path: Path, key: NullKey) -> dict[str, Null]:
    """Return what a cache file holds; nothing where it is damaged, which costs time, never a result."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["key"] != asdict(key):
            return {}
        return {
            name: Null(mean=n["mean"], spread=n["spread"], values=tuple(n["values"]))
            for name, n in stored["nulls"].items()
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
