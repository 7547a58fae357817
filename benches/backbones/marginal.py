"""What the cells of a grid allow to be said: mean excesses, and what a doubling of the operations is worth.

Everything is paired by seed: a slope is fitted to the cells of each seed, and its interval is over seeds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benches.backbones.cells import EQUAL_STEPS, IDENTITY, Record, best_rates, grid_cells, words
from benches.backbones.presets import BackbonesConfig
from benches.harness import paired

LEAST_DOUBLINGS = 0.03
"""Variants whose operations differ by less than 2 % are compared as they are: a slope would divide by nothing."""

BySeed = Mapping[int, float]


class Grid:
    """The cells of the grid itself, each variant at its width's rate."""

    def __init__(self, config: BackbonesConfig, records: Sequence[Record]) -> None:
        self.config = config
        self.rates = best_rates(config, records)
        wanted = {cell.identity for cell in grid_cells(config, self.rates)}
        self.cells = [r for r in records if r["status"] == "ok" and tuple(r[n] for n in IDENTITY) in wanted]
        self.spent = [words(budget) for budget in config.budgets] + [EQUAL_STEPS] * config.equal_steps
        self.base = config.variants[0].name

    def excess(self, variant: str, spent: str) -> dict[int, float]:
        """Return the excess of a variant, by seed."""
        return {r["seed"]: r["excess"] for r in self.cells if (r["variant"], r["spent"]) == (variant, spent)}

    def one(self, variant: str) -> Record | None:
        """Return any cell of a variant that ended well: sizes are those of all."""
        return next((r for r in self.cells if r["variant"] == variant), None)

    def axes(self) -> dict[str, list[str]]:
        """Return the variants along each axis, the base among them."""
        found: dict[str, list[str]] = {}
        for variant in self.config.variants[1:]:
            found.setdefault(variant.axis, [self.base]).append(variant.name)
        return found


class Worth(NamedTuple):
    """What one axis is worth under one way to spend."""

    axis: str
    spent: str
    drops: list[float]  # of the excess, by seed: per doubling of a step's operations, or all of it
    per_doubling: bool
    best: str  # the variant of least mean excess

    def record(self) -> Record:
        """Return it with its interval, as plain data."""
        interval = paired.known(self.drops)
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        mean = statistics.mean(self.drops)
        return {**self._asdict(), "drop": mean, "low": low, "high": high}


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the slope of the line through points by least squares."""
    mean_x, mean_y = statistics.mean(x), statistics.mean(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)


def worths(grid: Grid) -> list[Worth]:
    """Return what each axis is worth under each way to spend, from the variants that ended well."""
    found = []
    for axis, variants in grid.axes().items():
        for spent in grid.spent:
            excess = {name: grid.excess(name, spent) for name in variants}
            excess = {name: by_seed for name, by_seed in excess.items() if by_seed}
            if len(excess) < 2 or grid.base not in excess:
                continue
            doublings = {name: math.log2((grid.one(name) or {})["step_flops"]) for name in excess}
            seeds = [s for s in excess[grid.base] if all(s in by_seed for by_seed in excess.values())]
            apart = max(doublings.values()) - min(doublings.values()) > LEAST_DOUBLINGS
            if apart:
                x = list(doublings.values())
                drops = [-slope(x, [by_seed[s] for by_seed in excess.values()]) for s in seeds]
            else:
                last = list(excess)[-1]
                drops = [excess[grid.base][s] - excess[last][s] for s in seeds]
            if drops:
                best = min(excess, key=lambda name: statistics.mean(excess[name].values()))
                found.append(Worth(axis, spent, drops, apart, best))
    return found


def of_budget(grid: Grid) -> list[float]:
    """Return by how much a doubling of the budget lowers the base's excess, by seed; nothing for one budget."""
    budgets = [budget for budget in grid.config.budgets if grid.excess(grid.base, words(budget))]
    if len(budgets) < 2:
        return []
    excess = [grid.excess(grid.base, words(budget)) for budget in budgets]
    x = [math.log2(budget) for budget in budgets]
    return [-slope(x, [one[s] for one in excess]) for s in excess[0] if all(s in one for one in excess)]


def worth_words(drops: list[float], of: str) -> str:
    """Return in words what a drop of the excess allows to be said."""
    interval = paired.known(drops)
    if interval is None:
        return f"{of}: {statistics.mean(drops):+.4f}, without an interval, which needs two seeds"
    numbers = f"it falls by {interval.estimate:+.4f}, {interval.low:+.4f} to {interval.high:+.4f}"
    if interval.holds_zero:
        return f"{of} cannot be told from nothing ({numbers})"
    return f"{of} {'lowers' if interval.low > 0 else 'raises'} the excess ({numbers})"
