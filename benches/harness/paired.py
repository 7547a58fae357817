"""What paired runs allow to be said: means over seeds, and differences between two kinds of runs, seed by seed.

Runs of one seed share data, noise and times, so their difference is known far better than either.
"""

from __future__ import annotations

from collections.abc import Mapping

from diffusion.pairs import Interval, t_interval

BySeed = Mapping[int, float]


def differences(one: BySeed, other: BySeed) -> list[float]:
    """Return how much larger `one` is than `other`, for each seed that both have."""
    return [one[seed] - other[seed] for seed in one if seed in other]


def known(values: list[float]) -> Interval | None:
    """Return the mean with its 95 % t-interval; None where there are fewer than two values."""
    return t_interval(values) if len(values) > 1 else None


def mean_words(values: list[float]) -> str:
    """Return a mean over seeds with half the width of its interval, or as much of it as there is."""
    interval = known(values)
    if interval is None:
        return f"{values[0]:.4g}" if values else "-"
    return f"{interval.estimate:.4g} ± {interval.high - interval.estimate:.2g}"


def verdict(values: list[float], name: str, base: str) -> str:
    """Return in words what paired differences of a measure of which less is better allow to be said."""
    interval = known(values)
    if interval is None:
        return f"{name} cannot be compared to {base}: an interval needs two seeds that ended well"
    numbers = (
        f"{interval.estimate:+.4f}, 95 % interval {interval.low:+.4f} to {interval.high:+.4f}, {len(values)} seeds"
    )
    if interval.holds_zero:
        return f"{name} and {base} cannot be told apart ({numbers})"
    return f"{name} is {'worse' if interval.low > 0 else 'better'} than {base} ({numbers})"
