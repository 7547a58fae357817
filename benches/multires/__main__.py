"""Train one model on several resolutions at once: naive against factorized.

python -m benches.multires --preset demo        a minute: training only, the compile daemon's workload
python -m benches.multires --preset cpu         under three minutes, with samples and metrics
python -m benches.multires --preset cpu-long    the run behind benches/results/multires
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benches.harness import lab_cli as cli
from benches.harness.compile_counts import CompileCounts
from benches.harness.output import say
from benches.harness.run_folder import RunFolder
from benches.multires.presets import MultiresConfig, evaluation_steps, preset
from diffusion.buckets import BucketSchedule
from diffusion.equal_tokens import EqualTokensConfig
from diffusion.errors import RunFolderError
from diffusion.models import backbone_of
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Mode, Parametrization
from diffusion.training import Trainer


def configured(options: cli.LabOptions) -> MultiresConfig:
    """Return the preset with what the command line changed; raise `ConfigError` for what cannot be run."""
    config = preset(options.preset)
    if options.resolutions is not None:
        sides = cli.parse_numbers(options.resolutions, "--resolutions")
        visits = config.buckets.visits if len(sides) == len(config.buckets.visits or ()) else None
        backbone = config.backbone
        if isinstance(backbone, EqualTokensConfig):
            backbone = replace(backbone, resolutions=sides)
        config = replace(config, backbone=backbone, buckets=replace(config.buckets, resolutions=sides, visits=visits))
    if options.mode is not None:
        config = replace(config, modes=cli.parse_modes(options.mode))
    if options.target is not None:
        config = replace(config, target=cli.parse_target(options.target))
    if options.source is not None:
        config = replace(config, source=cli.source_of(options.source))
    if options.device is not None:
        config = replace(config, device=options.device)
    config = replace(config, seeds=cli.seeds_of(config.seeds, options))
    return replace(config, train=cli.training(config.train, options))


def trainer_for(config: MultiresConfig, mode: Mode, seed: int | None = None) -> Trainer:
    """Return a fresh trainer; all modes of a seed start from the same random weights and see the same data and noise.

    Without a seed it is the configuration's own.
    """
    train = config.train if seed is None else replace(config.train, seed=seed)
    torch.manual_seed(train.seed)
    return Trainer(
        objective=DenoisingObjective(
            backbone_of(replace(config.backbone, mode=mode)), Parametrization(target=config.target)
        ),
        schedule=config.schedule,
        source=config.source,
        buckets=BucketSchedule(config.buckets, seed=train.seed),
        config=train,
        phases=config.phases,
        device=config.device,
    )


def checkpoint_of(folder: RunFolder, mode: Mode, seed: int) -> Path:
    """Return where the checkpoint of a mode and seed lies."""
    return folder.path / f"{mode.value}-{seed}.pt"


def check_resumable(config: MultiresConfig, folder: RunFolder) -> None:
    """Raise `RunFolderError` where resuming would silently start over: steps were taken, and no checkpoint was kept."""
    begun = {(r["mode"], r["seed"]) for r in folder.records() if r.get("kind") == "step"}
    lost = [
        f"{mode.value}, seed {seed}"
        for seed in config.seeds
        for mode in config.modes
        if (mode.value, seed) in begun and not checkpoint_of(folder, mode, seed).exists()
    ]
    if lost or not config.checkpoint_every:
        why = f"no checkpoint of {'; '.join(lost)}" if lost else f"no checkpoints: preset {config.preset} writes none"
        raise RunFolderError(f"{folder.path} cannot be resumed, it has {why}; start a new run without --resume")


def train(config: MultiresConfig, mode: Mode, seed: int, folder: RunFolder, *, resume: bool) -> None:
    """Train one mode with one seed to the end, logging every step; measure and save it on the way."""
    trainer = trainer_for(config, mode, seed)
    checkpoint = checkpoint_of(folder, mode, seed)
    if resume and checkpoint.exists():
        from diffusion.checkpoints import load_checkpoint

        load_checkpoint(trainer, checkpoint)
        say(f"{mode.value}, seed {seed} continues at step {trainer.step}")
    stops = set[int]()
    if config.evaluation is not None:
        stops = set(evaluation_steps(config.train.steps, config.evaluation.times))
    with cli.progress(f"{mode.value:10} seed {seed}", config.train.steps - trainer.step) as advance:
        for record in trainer.steps():
            folder.log({"kind": "step", "mode": mode.value, "seed": seed, **record._asdict()})
            advance(f"{record.resolution} px  loss {record.loss:.4f}  {record.seconds:.2f} s")
            if trainer.step in stops:
                # Imported here: the demo trains only, and pays for no metric.
                from benches.multires.evaluation import evaluate

                evaluate(config, mode, trainer, folder)
            if config.checkpoint_every and trainer.step % config.checkpoint_every == 0:
                from diffusion.checkpoints import save_checkpoint

                save_checkpoint(trainer, checkpoint)


def document(config: MultiresConfig, folder: RunFolder, losses: list[float], counts: CompileCounts) -> dict[str, Any]:
    """Return the bench's last line."""
    more = {
        "steps": len(losses),
        "losses": losses,
        "graph_breaks": counts.graph_breaks,
        "cpp_builds": counts.cpp_builds,
        "triton_compiles": counts.triton_compiles,
    }
    return cli.document("multires", config, folder, counts, more)


def run(config: MultiresConfig, folder: RunFolder, counts: CompileCounts, resume: bool) -> dict[str, Any]:
    """Train every mode, and report; return the bench's last line."""
    if resume:
        check_resumable(config, folder)
    for seed in config.seeds:
        for mode in config.modes:
            train(config, mode, seed, folder, resume=resume)
    if config.evaluation is None:
        losses = [record["loss"] for record in folder.records()]
    else:
        from benches.multires.evaluation import log_perfect
        from benches.multires.report import write_report

        log_perfect(config, folder)
        losses = write_report(config, folder).losses()
    return document(config, folder, losses, counts)


def estimated(config: MultiresConfig) -> str:
    """Return in words what a run would need."""
    # Imported here: a run counts nothing beforehand.
    from benches.multires.estimate import estimate

    return estimate(config).words()


BENCH = cli.LabBench(
    name="multires",
    about="Train one model on several resolutions at once, naive against factorized.",
    configured=configured,
    run=run,
    has_source=True,
    estimate=estimated,
    has_target=True,
)

if __name__ == "__main__":
    cli.run(BENCH)
