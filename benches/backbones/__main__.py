"""What is a FLOP worth, spent on depth, interface depth, kind of feed-forward layer or width, at equal budgets?

    python -m benches.backbones --preset cpu        under three minutes
    python -m benches.backbones --preset cpu-long   the run behind benches/results/backbones

Every cell (variant, seed) is a record in stats.jsonl, failed ones too; `--resume` runs the cells that are missing.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from benches.backbones.presets import BackbonesConfig, Variant, preset
from benches.harness import lab_cli as cli
from benches.harness.compile_counts import CompileCounts
from benches.harness.run_folder import RunFolder, latest
from diffusion.backbone import BackboneConfig, FeedForward, HybridDiT
from diffusion.buckets import BucketSchedule
from diffusion.flops import counted_flops, forward_flops
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Mode, Parametrization
from diffusion.training import Trainer
from diffusion.validation import validate


def configured(options: cli.LabOptions) -> BackbonesConfig:
    """Return the preset with what the command line changed; raise `ConfigError` for what cannot be run."""
    config = preset(options.preset)
    config = replace(config, seeds=cli.seeds_of(config.seeds, options))
    if options.resolutions is not None:
        sides = cli.parse_numbers(options.resolutions, "--resolutions")
        config = replace(config, buckets=replace(config.buckets, resolutions=sides, visits=None))
    if options.steps is not None:
        config = replace(config, max_steps=options.steps)
    if options.compiled is not None:
        config = replace(config, train=replace(config.train, compile=options.compiled))
    if options.mode is not None:
        config = in_modes(config, cli.parse_modes(options.mode))
    if options.device is not None:
        config = replace(config, device=options.device)
    return config


def in_modes(config: BackbonesConfig, modes: tuple[Mode, ...]) -> BackbonesConfig:
    """Return the grid in one mode, or with every variant once in each of several; all compare to the first's base."""
    base = replace(config.base, mode=modes[0])
    if len(modes) == 1:
        return replace(config, base=base)
    variants = [
        replace(variant, name=f"{variant.name}, {mode.value}", changes=(*variant.changes, ("mode", mode.value)))
        for mode in modes
        for variant in config.variants
    ]
    return replace(config, base=base, variants=tuple(variants))


def varied(base: BackboneConfig, variant: Variant) -> BackboneConfig:
    """Return the backbone of a variant; raise `ConfigError` where it cannot be built."""
    values: dict[str, Any] = {field.name: getattr(base, field.name) for field in fields(base)}
    values |= dict(variant.changes)
    values["feedforward"] = FeedForward(values["feedforward"])
    values["mode"] = Mode(values["mode"])
    return BackboneConfig(**values)


def training_steps(config: BackbonesConfig, backbone: BackboneConfig) -> int:
    """Return how many steps the budget of effective operations pays for, at least one."""
    buckets = BucketSchedule(config.buckets, seed=0).buckets
    per_round = sum(b.batch * forward_flops(backbone, b.resolution).training for b in buckets)
    steps = max(1, int(config.budget_flops * len(buckets) / per_round))
    return steps if config.max_steps is None else min(steps, config.max_steps)


def run_cell(config: BackbonesConfig, variant: Variant, seed: int) -> dict[str, Any]:
    """Train one variant with one seed and return its record. Seeds pair the data, noise and times of all variants."""
    backbone_config = varied(config.base, variant)
    largest = max(config.buckets.resolutions)
    # Adam's step is as large as the learning rate, so wider matrices need a smaller one for the same change of their
    # output (Yang et al., arXiv 2203.03466): without this the grid would measure how well one rate fits each width.
    optimizer = config.train.optimizer
    optimizer = replace(optimizer, backbone_lr=optimizer.backbone_lr * config.base.width / backbone_config.width)
    steps = training_steps(config, backbone_config)
    torch.manual_seed(seed)
    trainer = Trainer(
        objective=DenoisingObjective(HybridDiT(backbone_config), Parametrization(target=config.target)),
        schedule=config.schedule,
        source=config.source,
        buckets=BucketSchedule(config.buckets, seed=seed),
        config=replace(config.train, steps=steps, seed=seed, optimizer=optimizer),
        device=config.device,
    )
    # Before the training: what cannot be counted should not cost a run.
    counted = counted_flops(trainer.objective.backbone, largest, config.device)
    records = list(trainer.steps())
    backbone = trainer.averaged

    def predict(noisy: torch.Tensor, logsnr: torch.Tensor, resolution: int) -> torch.Tensor:
        said: torch.Tensor = backbone(noisy, logsnr, trainer.layout(resolution)).target_BCHW
        return said

    points = validate(
        predict,
        Parametrization(target=config.target),
        config.schedule,
        config.source,
        resolutions=config.buckets.resolutions,
        bins=config.validation_bins,
        images=config.validation_images,
        device=config.device,
    )
    flops = forward_flops(backbone_config, largest)
    return {
        "status": "ok",
        "steps": steps,
        "parameters": sum(p.numel() for p in backbone.parameters()),
        "effective_flops": flops.effective,
        "dense_flops": flops.dense,
        "counted_flops": counted,
        "seconds": sum(r.seconds for r in records),
        "loss": sum(p.loss for p in points) / len(points),
        "excess": sum(p.excess or 0.0 for p in points) / len(points),
    }


def run_grid(config: BackbonesConfig, folder: RunFolder) -> None:
    """Run every cell that the folder does not hold yet; a cell that fails is recorded and the next one runs."""
    done = {(r["variant"], r["seed"]) for r in latest(folder.records(), "cell", "variant", "seed")}
    with cli.progress("backbones", len(config.variants) * len(config.seeds)) as advance:
        for seed in config.seeds:
            for variant in config.variants:
                if (variant.name, seed) in done:
                    advance(f"{variant.name}, seed {seed}: already there")
                    continue
                labels = {"kind": "cell", "variant": variant.name, "axis": variant.axis, "seed": seed}
                try:
                    result = run_cell(config, variant, seed)
                except Exception as error:  # noqa: BLE001 (whatever breaks one cell must not cost the others)
                    result = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
                folder.log(labels | result)
                advance(f"{variant.name}, seed {seed}: {result['status']}")


def run(config: BackbonesConfig, folder: RunFolder, counts: CompileCounts, _resume: bool) -> dict[str, Any]:
    """Run every cell that is missing, and report; return the bench's last line."""
    run_grid(config, folder)
    from benches.backbones.report import write_report

    summary = write_report(config, folder, cli.seconds_since_start())
    return {
        "bench": "backbones",
        "preset": config.preset,
        "seed": config.seeds[0],
        "seconds": cli.seconds_since_start(),
        "graphs": counts.graphs,
        "summary": summary,
        "out": str(folder.path),
    }


BENCH = cli.LabBench(
    name="backbones",
    about="Compare backbones trained on equal budgets of effective operations; --steps caps every run.",
    configured=configured,
    run=run,
)

if __name__ == "__main__":
    cli.run(BENCH)
