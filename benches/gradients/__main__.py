"""How losses and gradients depend on the noise level, for every target, mode and resolution.

python -m benches.gradients --preset cpu        under three minutes
python -m benches.gradients --preset cpu-long   the run behind benches/results/gradients
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benches.gradients.presets import GradientsConfig, preset
from benches.harness import lab_cli as cli
from benches.harness.compile_counts import start_counting
from benches.harness.run_folder import RunFolder, plain
from diffusion.backbone import HybridDiT
from diffusion.buckets import BucketSchedule
from diffusion.gradients import (
    Interval,
    cosine_matrix,
    gradient_statistics,
    single_gradients,
    times_denser_at_ends,
)
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Mode, Parametrization, Target
from diffusion.random_streams import stream
from diffusion.training import Trainer

PHASES = ("start", "trained")


def configured(
    name: str,
    *,
    resolutions: str | None,
    steps: int | None,
    seed: int,
    mode: str | None,
    device: str | None,
    compiled: bool | None,
) -> GradientsConfig:
    """Return the preset with what the command line changed; raise `ConfigError` for what cannot be run."""
    config = preset(name)
    if resolutions is not None:
        buckets = replace(config.buckets, resolutions=cli.parse_numbers(resolutions, "--resolutions"), visits=None)
        config = replace(config, buckets=buckets)
    train = replace(config.train, seed=seed)
    if steps is not None:
        train = replace(train, steps=steps)
    if compiled is not None:
        train = replace(train, compile=compiled)
    if mode is not None:
        config = replace(config, modes=cli.parse_modes(mode))
    if device is not None:
        config = replace(config, device=device)
    return replace(config, train=train)


def trainer_for(config: GradientsConfig, target: Target, mode: Mode) -> Trainer:
    """Return a fresh trainer; all start from the same random weights and see the same data and noise."""
    torch.manual_seed(config.train.seed)
    return Trainer(
        objective=DenoisingObjective(HybridDiT(replace(config.backbone, mode=mode)), Parametrization(target=target)),
        schedule=config.schedule,
        source=config.source,
        buckets=BucketSchedule(config.buckets, seed=config.train.seed),
        config=config.train,
        device=config.device,
    )


def flat(statistics: Any) -> dict[str, float]:
    """Return statistics as one row; an interval becomes three columns."""
    row: dict[str, float] = {}
    for name, value in statistics._asdict().items():
        if isinstance(value, Interval):
            row |= {name: value.estimate, f"{name}_low": value.low, f"{name}_high": value.high}
        else:
            row[name] = value
    return row


def measure(
    config: GradientsConfig, trainer: Trainer, labels: dict[str, str], folder: RunFolder, resolution: int
) -> None:
    """Log the statistics of every noise level at one resolution, and the cosines between levels."""
    device, seed, count = trainer.device, config.train.seed, config.images
    where = trainer.layout(resolution)
    # The same boards and noise at every level, for every target and mode: differences are not luck.
    images = config.source.draw(count, resolution, seed=seed, step=-1).to(device)
    noise = torch.randn(images.shape, generator=stream(seed, "gradients", resolution)).to(device)
    means = []
    for t in times_denser_at_ends(config.times):
        logsnr = config.schedule.logsnr(t.expand(count), resolution).to(device)
        rows, maps = single_gradients(trainer.objective, images, noise, logsnr, where)
        rows, maps = rows.cpu(), maps.cpu()
        means.append(rows.mean(dim=0))
        statistics = gradient_statistics(rows, maps, bootstraps=config.bootstraps, seed=seed)
        folder.log(
            {"kind": "gradients", **labels, "resolution": resolution, "t": float(t), "logsnr": float(logsnr[0])}
            | flat(statistics)
        )
    cosines = cosine_matrix(torch.stack(means)).tolist()
    folder.log({"kind": "cosines", **labels, "resolution": resolution, "matrix": cosines})


def cell_done(config: GradientsConfig, records: list[dict[str, Any]], target: Target, mode: Mode) -> bool:
    """Return whether an earlier run measured this target and mode completely."""
    found = {
        (r["phase"], r["resolution"])
        for r in records
        if r["kind"] == "cosines" and (r["target"], r["mode"]) == (target.value, mode.value)
    }
    return found == {(phase, side) for phase in PHASES for side in config.buckets.resolutions}


def run_cells(config: GradientsConfig, folder: RunFolder) -> None:
    """Train and measure every target and mode that the folder does not hold yet."""
    cells = [(target, mode) for target in config.targets for mode in config.modes]
    before = folder.records()
    with cli.progress("gradients", len(cells)) as advance:
        for target, mode in cells:
            if not cell_done(config, before, target, mode):
                trainer = trainer_for(config, target, mode)
                for phase in PHASES:
                    if phase == "trained":
                        losses = [record.loss for record in trainer.steps()]
                        folder.log({"kind": "training", "target": target.value, "mode": mode.value, "losses": losses})
                    labels = {"phase": phase, "target": target.value, "mode": mode.value}
                    for resolution in config.buckets.resolutions:
                        measure(config, trainer, labels, folder, resolution)
            advance(f"{target.value}, {mode.value}")


def gradients(
    preset: cli.Preset = "cpu",
    resolutions: cli.Resolutions = None,
    steps: cli.Steps = None,
    seed: cli.Seed = 0,
    mode: cli.ModeChoice = None,
    device: cli.Device = None,
    compile: cli.Compile = None,
    out: cli.Out = Path("runs"),
    resume: cli.Resume = None,
    tensorboard: cli.TensorBoard = False,
    dry_run: cli.DryRun = False,
) -> None:
    """Measure losses and gradients against the noise level, before and after some training."""
    config = configured(
        preset, resolutions=resolutions, steps=steps, seed=seed, mode=mode, device=device, compiled=compile
    )
    if dry_run:
        print(json.dumps(plain(config)))
        return
    cli.check_device(config.device)
    counts = start_counting()
    with cli.open_folder(out, "gradients", config, resume=resume, tensorboard=tensorboard) as folder:
        run_cells(config, folder)
        from benches.gradients.report import write_report

        summary = write_report(config, folder, cli.seconds_since_start())
        cli.last_line(
            {
                "bench": "gradients",
                "preset": config.preset,
                "seed": seed,
                "steps": config.train.steps,
                "seconds": cli.seconds_since_start(),
                "graphs": counts.graphs,
                "summary": summary,
                "out": str(folder.path),
            }
        )


if __name__ == "__main__":
    cli.run(gradients)
