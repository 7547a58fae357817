"""Averages over pairs of distinct images (U-statistics of degree two), with their variance and interval.

Legend: B images.

A mean that holds an image twice is biased by that image's own noise, and a bootstrap repeats images by its nature. An
average over pairs of *distinct* images is unbiased, and its variance is known: with the parts of Hoeffding (1948), h_ij
= theta + a_i + a_j + d_ij, it is 4 var(a) / B + 2 var(d) / (B (B - 1)). A jackknife counts the second part twice, and a
bootstrap about three times, where there is hardly any signal; here both parts are estimated without bias.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.errors import ConfigError

LEAST_IMAGES = 4
_HALVINGS = 10


class Interval(NamedTuple):
    """An estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether zero cannot be told from the estimate."""
        return self.low <= 0 <= self.high


class PairMean(NamedTuple):
    """The mean of h_ij over pairs of distinct images, and how well it is known."""

    value: float
    deviation: float  # of the value, as a standard deviation
    freedom: float  # degrees of freedom of the deviation

    def interval(self, unit: float = 1.0) -> Interval:
        """Return value and 95 % t-interval, both divided by `unit`."""
        reach = t_quantile(self.freedom) * self.deviation
        return Interval(self.value / unit, (self.value - reach) / unit, (self.value + reach) / unit)


def t_quantile(freedom: float, level: float = 0.95) -> float:
    """Return the two-sided quantile of Student's t law."""
    # Imported here: scipy costs a third of a second and training never needs it.
    from scipy.stats import t

    return float(t.ppf(0.5 + level / 2, freedom))


def t_interval(values: list[float]) -> Interval:
    """Return the mean of independent values with its 95 % t-interval. Raises `ConfigError` for fewer than two."""
    count = len(values)
    if count < 2:
        raise ConfigError(f"an interval needs at least two values, got {count}")
    mean = sum(values) / count
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1) / count)
    return PairMean(mean, deviation, count - 1).interval()


def not_rejected(at: Callable[[float], PairMean], estimate: float, *, least: float, most: float) -> Interval:
    """Return all values from `least` to `most` that a 5 % test does not reject, around an estimate (Fieller 1954).

    `at` takes a value and returns a mean that is zero in expectation where the value is true. Of a ratio a / b that is
    the mean of a - value b: its deviation is that at the tested value, so the interval is wide, up to everything, where
    b is badly known.
    """

    def accepted(value: float) -> bool:
        return at(value).interval().holds_zero

    def end(outside: float) -> float:
        if accepted(outside):
            return outside
        inside = estimate
        for _ in range(_HALVINGS):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if accepted(middle) else (inside, middle)
        return inside

    return Interval(estimate, end(least), end(most))


def pair_mean(h_BB: Tensor) -> PairMean:
    """Return the mean of h_ij over i != j. Raises `ConfigError` for fewer than `LEAST_IMAGES` images.

    The matrix need not be symmetric; its diagonal, where an image meets itself, plays no part. Degrees of freedom are
    Satterthwaite's (1946). `benches.gradients.coverage` shows by simulation what the intervals are worth.
    """
    count = len(h_BB)
    if count < LEAST_IMAGES:
        raise ConfigError(f"a mean over pairs needs at least {LEAST_IMAGES} images, got {count}")
    h_BB = h_BB.double()
    h_BB = (h_BB + h_BB.mT) / 2
    apart_BB = h_BB - torch.diag(h_BB.diagonal())
    pairs = count * (count - 1)
    value = apart_BB.sum() / pairs
    row_B = apart_BB.sum(dim=1) / (count - 1)
    # What the spread of the rows' means and the spread of all pairs are made of, solved for the two parts.
    of_rows = float((row_B - value).square().sum() / (count - 1)) * (count - 1) ** 2
    of_pairs = float(((apart_BB - value).square().sum() - count * value**2) / pairs)
    rows_a, rows_d = (count - 2) ** 2, count - 2
    pairs_a, pairs_d = 2 - 4 / count, 1 - 2 / pairs
    determinant = rows_a * pairs_d - rows_d * pairs_a
    first = max(0.0, (of_rows * pairs_d - of_pairs * rows_d) / determinant)
    second = max(0.0, (of_pairs - pairs_a * first) / pairs_d)
    part_a, part_d = 4 * first / count, 2 * second / pairs
    variance = part_a + part_d
    freedom = count - 1.0
    if variance > 0:
        # The first part is a difference: the spread of the rows less what the second part puts there.
        of_rows = 4 * (first + second / (count - 1)) / count
        freedom = variance**2 / (of_rows**2 / (count - 1) + part_d**2 / max(1.0, pairs / 2 - 1))
        # That no part is negative makes the variance steadier than the formula knows; the share is from the simulation.
        freedom = max(freedom, 0.75 * (count - 1))
    return PairMean(float(value), math.sqrt(variance), freedom)
