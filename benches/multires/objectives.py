"""What should a network say, where should its error be measured, and how much should each noise level count?

    python -m benches.multires.objectives --preset cpu        some minutes
    python -m benches.multires.objectives --preset cpu-long   every row, three seeds: a quarter of an hour

All nine pairs of (says, loss in), and weights beside them, on the same data, noise and seeds. Every cell (row, seed) is
a record in stats.jsonl, diverged ones too; `--resume` runs the cells that are missing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from benches.harness import lab_cli as cli
from benches.harness.compile_counts import CompileCounts
from benches.harness.run_folder import RunFolder, latest
from benches.harness.validated import validated
from benches.multires.objectives_presets import ObjectivesConfig, Row, preset
from diffusion.backbone import HybridDiT
from diffusion.buckets import BucketSchedule
from diffusion.errors import ConfigError, LossDivergedError
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Parametrization, Target
from diffusion.sampling import Drawing, sample_images
from diffusion.training import Trainer
from diffusion.weights import Phase

Record = dict[str, Any]


def configured(options: cli.LabOptions) -> ObjectivesConfig:
    """Return the preset with what the command line changed; raise `ConfigError` for what cannot be run."""
    config = preset(options.preset)
    config = replace(config, seeds=cli.seeds_of(config.seeds, options))
    if options.resolutions is not None:
        sides = cli.parse_numbers(options.resolutions, "--resolutions")
        config = replace(config, buckets=replace(config.buckets, resolutions=sides, visits=None))
    if options.mode is not None:
        mode, *others = cli.parse_modes(options.mode)
        if others:
            raise ConfigError(f"objectives are compared in one mode, and --mode {options.mode} names several")
        config = replace(config, backbone=replace(config.backbone, mode=mode))
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
        records = list(trainer.steps())
    except LossDivergedError as error:
        return {"status": "diverged", "error": str(error)}

    points = validated(trainer, bins=config.validation_bins, tokens=config.validation_tokens)
    logsnr = torch.tensor([point.logsnr for point in points], dtype=torch.float64)
    excess = torch.tensor([point.excess or 0.0 for point in points], dtype=torch.float64)
    excess_x0 = excess * parametrization.x0_weight(logsnr)
    samples = sample_images(
        trainer.averaged,
        parametrization,
        config.schedule,
        count=config.drawn,
        resolution=min(config.buckets.resolutions),
        drawing=Drawing(),
        seed=seed,
    )
    # Imported here: training needs no metric.
    from diffusion.metrics.parallelism import checkerboard_fit

    return {
        "status": "ok",
        "seconds": sum(record.seconds for record in records),
        "cpu_seconds": sum(record.cpu_seconds for record in records),
        "excess_x0": float(excess_x0.mean()),
        "excess_v": float((excess_x0 / Parametrization(target=Target.V).x0_weight(logsnr)).mean()),
        "r2": float(torch.from_numpy(checkerboard_fit(samples.numpy())).median()),
    }


def run_cells(config: ObjectivesConfig, folder: RunFolder) -> None:
    """Run every cell that the folder does not hold yet."""
    done = {(r["row"], r["seed"]) for r in latest(folder.records(), "cell", "row", "seed")}
    with cli.progress("objectives", len(config.rows) * len(config.seeds)) as advance:
        for seed in config.seeds:
            for row in config.rows:
                if (row.name, seed) not in done:
                    folder.log({"kind": "cell", "row": row.name, "seed": seed} | run_cell(config, row, seed))
                advance(f"{row.name}, seed {seed}")


def run(config: ObjectivesConfig, folder: RunFolder, counts: CompileCounts, _resume: bool) -> dict[str, Any]:
    """Run every cell that is missing, and report; return the bench's last line."""
    run_cells(config, folder)
    from benches.multires.objectives_report import write_report

    summary = write_report(config, folder)
    return cli.document("objectives", config, folder, counts, {"summary": summary})


BENCH = cli.LabBench(
    name="objectives",
    about="Compare what a network says, where its error is measured, and how much each noise level counts.",
    configured=configured,
    run=run,
)

if __name__ == "__main__":
    cli.run(BENCH)
