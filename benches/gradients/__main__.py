"""How losses and gradients depend on the noise level, for every target, mode and resolution.

python -m benches.gradients --preset cpu        under three minutes
python -m benches.gradients --preset cpu-long   the run behind benches/results/gradients
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benches.gradients.presets import GradientsConfig, preset
from benches.harness import lab_cli as cli
from benches.harness.compile_counts import CompileCounts
from benches.harness.run_folder import RunFolder
from diffusion.backbone import HybridDiT
from diffusion.buckets import BucketSchedule
from diffusion.gradients import GradientStatistics, cosine_matrix, gradient_statistics, single_gradients
from diffusion.objective import DenoisingObjective
from diffusion.pairs import Interval
from diffusion.parametrization import Mode, Parametrization, Target
from diffusion.random_streams import stream
from diffusion.schedules import even_logsnr
from diffusion.training import Trainer

PHASES = ("start", "trained")


def configured(options: cli.LabOptions) -> GradientsConfig:
    """Return the preset with what the command line changed; raise `ConfigError` for what cannot be run."""
    config = preset(options.preset)
    if options.resolutions is not None:
        sides = cli.parse_numbers(options.resolutions, "--resolutions")
        config = replace(config, buckets=replace(config.buckets, resolutions=sides, visits=None))
    if options.mode is not None:
        config = replace(config, modes=cli.parse_modes(options.mode))
    if options.source is not None:
        config = replace(config, source=cli.source_of(options.source))
    if options.device is not None:
        config = replace(config, device=options.device)
    config = replace(config, seeds=cli.seeds_of(config.seeds, options))
    return replace(config, train=cli.training(config.train, options))


def trainer_for(config: GradientsConfig, target: Target, mode: Mode, seed: int) -> Trainer:
    """Return a fresh trainer; all of a seed start from the same random weights and see the same data and noise."""
    torch.manual_seed(seed)
    return Trainer(
        objective=DenoisingObjective(HybridDiT(replace(config.backbone, mode=mode)), Parametrization(target=target)),
        schedule=config.schedule,
        source=config.source,
        buckets=BucketSchedule(config.buckets, seed=seed),
        config=replace(config.train, seed=seed),
        device=config.device,
    )


def flat(statistics: GradientStatistics) -> dict[str, float]:
    """Return statistics as one row; an interval becomes three columns."""
    row: dict[str, float] = {}
    for name, value in statistics._asdict().items():
        if isinstance(value, Interval):
            row |= {name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high}
        else:
            row[name] = value
    return row


def measure(
    config: GradientsConfig, trainer: Trainer, labels: dict[str, str | int], folder: RunFolder, resolution: int
) -> None:
    """Log the statistics of every noise level at one resolution, and the cosines between levels."""
    device, seed, count = trainer.device, trainer.config.seed, config.images
    where = trainer.layout(resolution)
    # The same boards and noise at every level, for every target and mode: differences are not luck. Between levels only
    # gradients of different images are compared, so that what they share is not taken for agreement.
    images = config.source.draw(count, resolution, seed=seed, step=-1).to(device)
    noise = torch.randn(images.shape, generator=stream(seed, "gradients", resolution)).to(device)
    levels = even_logsnr(config.schedule, resolution, config.levels, highest=config.highest, lowest=config.lowest)
    gradients = []
    for level in levels:
        logsnr = level.expand(count).to(device)
        rows, maps = single_gradients(trainer.objective, images, noise, logsnr, where)
        gradients.append(rows.cpu())
        statistics = gradient_statistics(gradients[-1], maps.cpu())
        folder.log(
            {"kind": "gradients", **labels, "resolution": resolution, "logsnr": float(level)}
            | {"t": float(config.schedule.time(level, resolution))}
            | flat(statistics)
        )
    cosines = cosine_matrix(gradients)
    folder.log({"kind": "cosines", **labels, "resolution": resolution, "matrix": cosines})


def cell_done(config: GradientsConfig, records: list[dict[str, Any]], labels: dict[str, str | int]) -> bool:
    """Return whether an earlier run measured this target, mode and seed completely."""
    found = {
        (r["phase"], r["resolution"])
        for r in records
        if r["kind"] == "cosines" and all(r[name] == value for name, value in labels.items())
    }
    return found == {(phase, side) for phase in PHASES for side in config.buckets.resolutions}


def run_cells(config: GradientsConfig, folder: RunFolder) -> None:
    """Train and measure every target, mode and seed that the folder does not hold yet."""
    cells = [(seed, target, mode) for seed in config.seeds for target in config.targets for mode in config.modes]
    before = folder.records()
    with cli.progress("gradients", len(cells)) as advance:
        for seed, target, mode in cells:
            labels: dict[str, str | int] = {"target": target.value, "mode": mode.value, "seed": seed}
            if not cell_done(config, before, labels):
                trainer = trainer_for(config, target, mode, seed)
                for phase in PHASES:
                    if phase == "trained":
                        losses = [record.loss for record in trainer.steps()]
                        folder.log({"kind": "training", **labels, "losses": losses})
                    for resolution in config.buckets.resolutions:
                        measure(config, trainer, {"phase": phase, **labels}, folder, resolution)
            advance(f"{target.value}, {mode.value}, seed {seed}")


def run(config: GradientsConfig, folder: RunFolder, counts: CompileCounts, _resume: bool) -> dict[str, Any]:
    """Measure every cell that is missing, and report; return the bench's last line."""
    run_cells(config, folder)
    from benches.gradients.report import write_report

    summary = write_report(config, folder)
    return cli.document("gradients", config, folder, counts, {"steps": config.train.steps, "summary": summary})


BENCH = cli.LabBench(
    name="gradients",
    about="Measure losses and gradients against the noise level, before and after some training.",
    configured=configured,
    run=run,
    has_source=True,
)

if __name__ == "__main__":
    cli.run(BENCH)
