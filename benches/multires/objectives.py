"""What should a network say, where should its error be measured, and how much should each noise level count?

    python -m benches.multires.objectives --preset cpu        some minutes
    python -m benches.multires.objectives --preset cpu-long   every row, three seeds: an hour of one core

All nine pairs of (says, loss in), and weights beside them, on the same data, noise and seeds. Every cell (row, seed) is
a record in stats.jsonl, diverged ones too; `--resume` runs the cells that are missing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from benches.harness import lab_cli as cli
from benches.harness import markdown as reports
from benches.harness.compile_counts import CompileCounts
from benches.harness.machine import machine_line
from benches.harness.run_folder import RunFolder, latest
from benches.multires.presets import FAST, LEARNER
from diffusion.backbone import BackboneConfig, HybridDiT
from diffusion.buckets import BucketConfig, BucketSchedule
from diffusion.data import Checkerboards
from diffusion.errors import ConfigError, LossDivergedError, PresetError
from diffusion.objective import DenoisingObjective
from diffusion.pairs import Interval, t_interval
from diffusion.parametrization import Parametrization, Target
from diffusion.sampling import Sampler, sample_images
from diffusion.schedules import CosineLogSNR, ResolutionShifted, Schedule
from diffusion.training import TrainConfig, Trainer
from diffusion.validation import validate
from diffusion.weights import Bell, LossConfig, MinSNR, Phase, Sigmoid

Record = dict[str, Any]
MEASURES = {"excess_x0": "excess in x0", "excess_v": "excess in v"}
"""Of these, less is better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One objective in its three parts."""

    name: str
    says: Target
    loss: LossConfig


PAIRS = tuple(
    Row(name=f"{says.value} / {loss_in.value}", says=says, loss=LossConfig(loss_in=loss_in))
    for says in Target
    for loss_in in Target
)
WEIGHTED = (
    Row(name="x0 / x0, min-SNR", says=Target.X0, loss=LossConfig(loss_in=Target.X0, weight=MinSNR())),
    Row(name="x0 / epsilon, sigmoid", says=Target.X0, loss=LossConfig(loss_in=Target.EPSILON, weight=Sigmoid())),
    Row(name="x0 / v, bell", says=Target.X0, loss=LossConfig(loss_in=Target.V, weight=Bell())),
    Row(name="x0 / v, cap 4", says=Target.X0, loss=LossConfig(loss_in=Target.V, cap=4.0)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectivesConfig:
    """One run: every row is trained once a seed; rows are compared to the first, seed by seed."""

    preset: str
    backbone: BackboneConfig = LEARNER
    rows: tuple[Row, ...] = (*PAIRS, *WEIGHTED)
    seeds: tuple[int, ...] = (0, 1, 2)
    buckets: BucketConfig = field(default_factory=lambda: BucketConfig(resolutions=(16,), tokens_per_step=2048))
    train: TrainConfig = field(default_factory=lambda: TrainConfig(steps=600, compile=False, optimizer=FAST))
    schedule: Schedule = field(default_factory=lambda: ResolutionShifted(inner=CosineLogSNR()))
    source: Checkerboards = field(default_factory=Checkerboards)
    validation_bins: int = 8
    validation_images: int = 64
    drawn: int = 64
    """Samples at the smallest resolution, whose checkerboard R2 is taken."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not self.rows or len({row.name for row in self.rows}) != len(self.rows):
            raise ConfigError("rows must be there and have names of their own")
        if not self.seeds or self.drawn < 2:
            raise ConfigError("at least one seed and two samples are needed")


def _demo() -> ObjectivesConfig:
    return ObjectivesConfig(
        preset="demo",
        backbone=replace(LEARNER, width=32, depth=2, heads=2, hidden=64),
        rows=PAIRS[:3],
        seeds=(0, 1),
        buckets=BucketConfig(resolutions=(16,), tokens_per_step=512),
        train=TrainConfig(steps=20, compile=False, optimizer=FAST),
        validation_images=8,
        drawn=8,
    )


def _cpu() -> ObjectivesConfig:
    return ObjectivesConfig(
        preset="cpu", seeds=(0, 1), train=TrainConfig(steps=100, compile=False, optimizer=FAST), validation_images=32
    )


def _gpu() -> ObjectivesConfig:
    return ObjectivesConfig(
        preset="gpu",
        backbone=BackboneConfig(width=256, depth=8, heads=8, hidden=512, places=True),
        buckets=BucketConfig(tokens_per_step=65536),
        train=TrainConfig(steps=5000),
        drawn=512,
        device="cuda",
    )


PRESETS = {"demo": _demo, "cpu": _cpu, "cpu-long": lambda: ObjectivesConfig(preset="cpu-long"), "gpu": _gpu}


def configured(options: cli.LabOptions) -> ObjectivesConfig:
    """Return the preset with what the command line changed; raise `ConfigError` for what cannot be run."""
    if options.preset not in PRESETS:
        raise PresetError(options.preset, tuple(PRESETS))
    config = PRESETS[options.preset]()
    config = replace(config, seeds=tuple(options.seed + i for i in range(len(config.seeds))))
    if options.resolutions is not None:
        sides = cli.parse_numbers(options.resolutions, "--resolutions")
        config = replace(config, buckets=replace(config.buckets, resolutions=sides, visits=None))
    if options.mode is not None:
        modes = cli.parse_modes(options.mode)
        if len(modes) > 1:
            raise ConfigError(f"objectives are compared in one mode, and --mode {options.mode} names {len(modes)}")
        config = replace(config, backbone=replace(config.backbone, mode=modes[0]))
    if options.device is not None:
        config = replace(config, device=options.device)
    return replace(config, train=cli.training(config.train, options))


def run_cell(config: ObjectivesConfig, row: Row, seed: int) -> Record:
    """Train one row with one seed and return its record. Seeds pair weights, data, noise and times of all rows."""
    torch.manual_seed(seed)
    parametrization = Parametrization(target=row.says)
    trainer = Trainer(
        objective=DenoisingObjective(HybridDiT(config.backbone), parametrization),
        schedule=config.schedule,
        source=config.source,
        buckets=BucketSchedule(config.buckets, seed=seed),
        config=replace(config.train, seed=seed),
        phases=(Phase(until=1.0, loss=row.loss),),
        device=config.device,
    )
    try:
        seconds = sum(record.seconds for record in trainer.steps())
    except LossDivergedError as error:
        return {"status": "diverged", "error": str(error)}

    def predict(noisy: torch.Tensor, logsnr: torch.Tensor, resolution: int) -> torch.Tensor:
        said: torch.Tensor = trainer.averaged(noisy, logsnr, trainer.layout(resolution)).target_BCHW
        return said

    points = validate(
        predict,
        parametrization,
        config.schedule,
        config.source,
        resolutions=config.buckets.resolutions,
        bins=config.validation_bins,
        images=config.validation_images,
        device=config.device,
    )
    logsnr = torch.tensor([point.logsnr for point in points], dtype=torch.float64)
    excess = torch.tensor([point.excess or 0.0 for point in points], dtype=torch.float64)
    excess_x0 = excess * parametrization.x0_weight(logsnr)
    samples = sample_images(
        trainer.averaged,
        parametrization,
        config.schedule,
        count=config.drawn,
        resolution=min(config.buckets.resolutions),
        steps=16,
        seed=seed,
        sampler=Sampler.DPM_2M,
    )
    # Imported here: training needs no metric.
    from diffusion.metrics.parallelism import checkerboard_fit

    return {
        "status": "ok",
        "seconds": seconds,
        "excess_x0": float(excess_x0.mean()),
        "excess_v": float((excess_x0 / Parametrization(target=Target.V).x0_weight(logsnr)).mean()),
        "r2": float(torch.from_numpy(checkerboard_fit(samples.numpy())).median()),
    }


def differences(cells: list[Record], name: str, base: str, measure: str) -> list[float]:
    """Return how much larger a measure of a row is than the base's, seed by seed, where both have ended well."""
    known = {(c["row"], c["seed"]): c[measure] for c in cells if c["status"] == "ok"}
    seeds = [seed for row, seed in known if row == name and (base, seed) in known]
    return [known[name, seed] - known[base, seed] for seed in seeds]


def verdict(values: list[float], name: str, base: str) -> str:
    """Return in words what paired differences of an excess allow to be said."""
    if len(values) < 2:
        return f"{name} cannot be compared to {base}: an interval needs two seeds that ended well"
    known: Interval = t_interval(values)
    numbers = f"{known.estimate:+.4f}, 95 % interval {known.low:+.4f} to {known.high:+.4f}, {len(values)} seeds"
    if known.holds_zero:
        return f"{name} and {base} cannot be told apart ({numbers})"
    return f"{name} is {'worse' if known.low > 0 else 'better'} than {base} ({numbers})"


QUESTIONS = (("v / v", "x0 / x0"), ("x0 / v", "x0 / x0"), ("v / v", "x0 / v"))
"""Is v-prediction worse? Because of the loss in v? Or because the network says v?"""


def report(config: ObjectivesConfig, cells: list[Record], seconds: float) -> str:
    """Return report.md, and print its table."""
    base = config.rows[0].name
    header = ["says / loss in", "excess in x0", "excess in v", "median R2", *(f"{m} - {base}" for m in MEASURES)]
    body = []
    for row in config.rows:
        good = [c for c in cells if c["row"] == row.name and c["status"] == "ok"]
        line = [row.name] + [
            reports.number(sum(c[m] for c in good) / len(good)) if good else "diverged" for m in (*MEASURES, "r2")
        ]
        for measure in MEASURES:
            values = differences(cells, row.name, base, measure)
            if row.name == base or len(values) < 2:
                line.append("-")
                continue
            known = t_interval(values)
            line.append(f"{known.low:+.4f} to {known.high:+.4f}")
        body.append(line)
    cli.print_table(f"{config.train.steps} steps, seeds {', '.join(map(str, config.seeds))}", header, body)
    names = {row.name for row in config.rows}
    said = [
        f"- In {title.removeprefix('excess in ')}: {verdict(differences(cells, one, other, measure), one, other)}."
        for one, other in QUESTIONS
        if {one, other} <= names
        for measure, title in MEASURES.items()
    ]
    return "\n".join(
        [
            "# objectives: what a network says, where its error is measured, and what counts\n",
            f"Command: `{reports.command()}`  \nMachine: {machine_line()}  \n"
            f"Wall seconds: {seconds:.0f}, CPU seconds: {time.process_time():.0f}.\n",
            f"{config.train.steps} steps, {len(config.seeds)} seeds, paired. Excess is over the least possible error, "
            "mean over noise levels; the last two columns are 95 % t-intervals of the paired difference. True boards "
            "have a median R2 of about 0.7 at 16 px.\n",
            reports.table(header, body),
            "## What the data allow to be said\n",
            *(said or ["- Nothing: the rows of the question were not run."]),
        ]
    )


def run(config: ObjectivesConfig, folder: RunFolder, counts: CompileCounts, _resume: bool) -> dict[str, Any]:
    """Run every cell that is missing, and report; return the bench's last line."""
    done = {(r["row"], r["seed"]) for r in latest(folder.records(), "cell", "row", "seed")}
    with cli.progress("objectives", len(config.rows) * len(config.seeds)) as advance:
        for seed in config.seeds:
            for row in config.rows:
                if (row.name, seed) not in done:
                    folder.log({"kind": "cell", "row": row.name, "seed": seed} | run_cell(config, row, seed))
                advance(f"{row.name}, seed {seed}")
    cells = latest(folder.records(), "cell", "row", "seed")
    names = list(dict.fromkeys(name for cell in cells for name in cell))
    folder.write_csv("cells.csv", [{name: cell.get(name, "") for name in names} for cell in cells])
    seconds = cli.seconds_since_start()
    folder.write_text("report.md", report(config, cells, seconds) + "\n")
    return {
        "bench": "objectives",
        "preset": config.preset,
        "seed": config.seeds[0],
        "seconds": seconds,
        "graphs": counts.graphs,
        "cells": cells,
        "out": str(folder.path),
    }


BENCH = cli.LabBench(
    name="objectives",
    about="Compare what a network says, where its error is measured, and how much each noise level counts.",
    configured=configured,
    run=run,
)

if __name__ == "__main__":
    cli.run(BENCH)
