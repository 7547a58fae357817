"""The cells of the grid: which there are, and how one is trained.

A cell is one variant, one seed, what it may spend and a learning rate. Seeds pair data, noise and times of all cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import torch

from benches.backbones.presets import BackbonesConfig, Variant
from benches.harness.validated import validated
from diffusion.backbone import BackboneConfig, FeedForward, HybridDiT
from diffusion.buckets import BucketSchedule
from diffusion.flops import counted_flops, forward_flops
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Mode, Parametrization
from diffusion.training import Trainer

Record = dict[str, Any]
IDENTITY = ("variant", "seed", "spent", "rate")
EQUAL_STEPS = "equal steps"


class Cell(NamedTuple):
    """One training of the grid."""

    variant: Variant
    seed: int
    spent: str  # a budget, as text, or EQUAL_STEPS
    rate: float  # at the base's width

    @property
    def identity(self) -> tuple[str, int, str, float]:
        """What tells its record from others'."""
        return self.variant.name, self.seed, self.spent, self.rate


def words(budget: float) -> str:
    """Return a budget as it is called in records and tables."""
    return f"{budget:.3g}"


def varied(base: BackboneConfig, variant: Variant) -> BackboneConfig:
    """Return the backbone of a variant; raise `ConfigError` where it cannot be built."""
    values: dict[str, Any] = {field.name: getattr(base, field.name) for field in fields(base)}
    values |= dict(variant.changes)
    values["feedforward"] = FeedForward(values["feedforward"])
    values["mode"] = Mode(values["mode"])
    return BackboneConfig(**values)


def width_of(config: BackbonesConfig, variant: Variant) -> int:
    """Return a variant's width; unlike its whole backbone it is known of impossible variants, too."""
    return int(dict(variant.changes).get("width", config.base.width))


def step_flops(config: BackbonesConfig, backbone: BackboneConfig) -> float:
    """Return the effective operations of one training step, the mean over a round of all resolutions."""
    schedule = BucketSchedule(config.buckets, seed=0)
    visits = config.buckets.visits or (1,) * len(schedule.buckets)
    costs = [b.batch * forward_flops(backbone, b.resolution).training for b in schedule.buckets]
    return sum(n * cost for n, cost in zip(visits, costs, strict=True)) / sum(visits)


def training_steps(config: BackbonesConfig, backbone: BackboneConfig, spent: str) -> int:
    """Return how many steps a cell may take, at least one."""
    budget = config.control_budget if spent == EQUAL_STEPS else float(spent)
    payer = config.base if spent == EQUAL_STEPS else backbone
    steps = max(1, int(budget / step_flops(config, payer)))
    return steps if config.max_steps is None else min(steps, config.max_steps)


def tuning_cells(config: BackbonesConfig) -> list[Cell]:
    """Return the cells that find each width's rate: its first variant on the smallest budget; none for one rate."""
    if len(config.rates) == 1:
        return []
    first: dict[int, Variant] = {}
    for variant in config.variants:
        first.setdefault(width_of(config, variant), variant)
    return [
        Cell(variant, seed, words(config.budgets[0]), rate)
        for variant in first.values()
        for rate in config.rates
        for seed in config.seeds
    ]


def best_rates(config: BackbonesConfig, records: Sequence[Record]) -> dict[int, float]:
    """Return each width's rate of least mean excess; the first of the rates where none ended well for all seeds."""
    first: dict[int, Mapping[float, float]] = {}
    for width in dict.fromkeys(width_of(config, variant) for variant in config.variants):
        cells = [c for c in tuning_cells(config) if width_of(config, c.variant) == width]
        means = {}
        for rate in config.rates:
            wanted = {c.identity for c in cells if c.rate == rate}
            mine = [r["excess"] for r in records if r["status"] == "ok" and tuple(r[n] for n in IDENTITY) in wanted]
            if mine and len(mine) == len(config.seeds):
                means[rate] = sum(mine) / len(mine)
        first[width] = means
    return {width: min(means, key=lambda r: means[r]) if means else config.rates[0] for width, means in first.items()}


def grid_cells(config: BackbonesConfig, rates: Mapping[int, float]) -> list[Cell]:
    """Return the cells of every variant, seed and budget, and of the control, each at its width's rate."""
    spent = [words(budget) for budget in config.budgets] + [EQUAL_STEPS] * config.equal_steps
    return [
        Cell(variant, seed, one, rates[width_of(config, variant)])
        for one in spent
        for seed in config.seeds
        for variant in config.variants
    ]


def run_cell(config: BackbonesConfig, cell: Cell) -> Record:
    """Train one cell and return its record."""
    backbone = varied(config.base, cell.variant)
    largest = max(config.buckets.resolutions)
    optimizer = replace(
        config.train.optimizer,
        backbone_lr=cell.rate,
        interface_lr=cell.rate,
        width_scale=backbone.width / config.base.width,
    )
    steps = training_steps(config, backbone, cell.spent)
    torch.manual_seed(cell.seed)
    trainer = Trainer(
        objective=DenoisingObjective(HybridDiT(backbone), Parametrization(target=config.target)),
        schedule=config.schedule,
        source=config.source,
        buckets=BucketSchedule(config.buckets, seed=cell.seed),
        config=replace(config.train, steps=steps, seed=cell.seed, optimizer=optimizer),
        device=config.device,
    )
    # Before the training: what cannot be counted should not cost a run.
    counted = counted_flops(trainer.objective.backbone, largest, config.device)
    records = list(trainer.steps())
    points = validated(trainer, bins=config.validation_bins, tokens=config.validation_tokens)
    flops = forward_flops(backbone, largest)
    by_side = {
        f"excess_{side}": sum(p.excess or 0.0 for p in points if p.resolution == side) / config.validation_bins
        for side in config.buckets.resolutions
    }
    return {
        "status": "ok",
        "steps": steps,
        "parameters": sum(p.numel() for p in trainer.averaged.parameters()),
        "effective_flops": flops.effective,
        "dense_flops": flops.dense,
        "counted_flops": counted,
        "step_flops": step_flops(config, backbone),
        "seconds": sum(r.seconds for r in records),
        "cpu_seconds": sum(r.cpu_seconds for r in records),
        "loss": sum(p.loss for p in points) / len(points),
        "excess": sum(by_side.values()) / len(by_side),
        **by_side,
    }
