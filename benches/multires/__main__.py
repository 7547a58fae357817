"""Train one model on several resolutions at once: naive against factorized.

python -m benches.multires --preset demo        a minute: training only, the compile daemon's workload
python -m benches.multires --preset cpu         under three minutes, with samples and metrics
python -m benches.multires --preset cpu-long    the run behind benches/results/multires
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benches.harness import lab_cli as cli
from benches.harness.compile_counts import CompileCounts, start_counting
from benches.harness.run_folder import RunFolder, plain
from benches.multires.presets import MultiresConfig, evaluation_steps, preset
from diffusion.backbone import HybridDiT
from diffusion.buckets import BucketSchedule
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Mode, Parametrization
from diffusion.training import Trainer


def configured(
    name: str,
    *,
    resolutions: str | None,
    steps: int | None,
    seed: int,
    mode: str | None,
    target: str | None,
    device: str | None,
    compiled: bool | None,
) -> MultiresConfig:
    """Return the preset with what the command line changed; raise `ConfigError` for what cannot be run."""
    config = preset(name)
    if resolutions is not None:
        sides = cli.parse_numbers(resolutions, "--resolutions")
        visits = config.buckets.visits if len(sides) == len(config.buckets.visits or ()) else None
        config = replace(config, buckets=replace(config.buckets, resolutions=sides, visits=visits))
    train = replace(config.train, seed=seed)
    if steps is not None:
        train = replace(train, steps=steps)
    if compiled is not None:
        train = replace(train, compile=compiled)
    if mode is not None:
        config = replace(config, modes=cli.parse_modes(mode))
    if target is not None:
        config = replace(config, target=cli.parse_target(target))
    if device is not None:
        config = replace(config, device=device)
    return replace(config, train=train)


def trainer_for(config: MultiresConfig, mode: Mode) -> Trainer:
    """Return a fresh trainer; all modes of a run start from the same random weights and see the same data and noise."""
    torch.manual_seed(config.train.seed)
    return Trainer(
        objective=DenoisingObjective(
            HybridDiT(replace(config.backbone, mode=mode)), Parametrization(target=config.target)
        ),
        schedule=config.schedule,
        source=config.source,
        buckets=BucketSchedule(config.buckets, seed=config.train.seed),
        config=config.train,
        device=config.device,
    )


def train(config: MultiresConfig, mode: Mode, folder: RunFolder, *, resume: bool) -> None:
    """Train one mode to the end, logging every step; measure and save it on the way."""
    trainer = trainer_for(config, mode)
    checkpoint = folder.path / f"{mode.value}.pt"
    if resume and checkpoint.exists():
        from diffusion.checkpoints import load_checkpoint

        load_checkpoint(trainer, checkpoint)
        cli.say(f"{mode.value} continues at step {trainer.step}")
    stops = set[int]()
    if config.evaluation is not None:
        stops = set(evaluation_steps(config.train.steps, config.evaluation.times))
    with cli.progress(f"{mode.value:10}", config.train.steps - trainer.step) as advance:
        for record in trainer.steps():
            folder.log({"kind": "step", "mode": mode.value, **record._asdict()})
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
    return {
        "bench": "multires",
        "preset": config.preset,
        "seed": config.train.seed,
        "steps": len(losses),
        "losses": losses,
        "seconds": cli.seconds_since_start(),
        "graphs": counts.graphs,
        "graph_breaks": counts.graph_breaks,
        "cpp_builds": counts.cpp_builds,
        "triton_compiles": counts.triton_compiles,
        "out": str(folder.path),
    }


def multires(
    preset: cli.Preset = "cpu",
    resolutions: cli.Resolutions = None,
    steps: cli.Steps = None,
    seed: cli.Seed = 0,
    mode: cli.ModeChoice = None,
    target: cli.TargetChoice = None,
    device: cli.Device = None,
    compile: cli.Compile = None,
    out: cli.Out = Path("runs"),
    resume: cli.Resume = None,
    tensorboard: cli.TensorBoard = False,
    dry_run: cli.DryRun = False,
) -> None:
    """Train one model on several resolutions at once, naive against factorized."""
    config = configured(
        preset,
        resolutions=resolutions,
        steps=steps,
        seed=seed,
        mode=mode,
        target=target,
        device=device,
        compiled=compile,
    )
    if dry_run:
        print(json.dumps(plain(config)))
        return
    cli.check_device(config.device)
    counts = start_counting()
    with cli.open_folder(out, "multires", config, resume=resume, tensorboard=tensorboard) as folder:
        for chosen in config.modes:
            train(config, chosen, folder, resume=resume is not None)
        if config.evaluation is None:
            losses = [record["loss"] for record in folder.records()]
        else:
            from benches.multires.report import write_report

            losses = write_report(config, folder, cli.seconds_since_start()).losses()
        cli.last_line(document(config, folder, losses, counts))


if __name__ == "__main__":
    cli.run(multires)
