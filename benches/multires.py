"""Train one model on several resolutions at once: naive against factorized.

python -m benches.multires --preset demo        a minute: training only, the compile daemon's workload
python -m benches.multires --preset cpu         under three minutes, with samples and metrics
python -m benches.multires --preset cpu-long    the run behind benches/results/multires
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benches import command_line as cli
from benches.compile_counts import CompileCounts, start_counting
from benches.multires_presets import MultiresConfig, preset
from benches.runs import RunFolder, plain
from diffusion.backbone import HybridDiT
from diffusion.buckets import BucketSchedule
from diffusion.errors import ConfigError
from diffusion.objective import DenoisingObjective
from diffusion.parametrization import Mode, Parametrization
from diffusion.training import Trainer

MODES = {mode.value: (mode,) for mode in Mode} | {"both": (Mode.NAIVE, Mode.FACTORIZED), "all": tuple(Mode)}


def configured(
    name: str,
    *,
    resolutions: str | None,
    steps: int | None,
    seed: int,
    mode: str | None,
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
        if mode not in MODES:
            raise ConfigError(f"unknown mode {mode!r}; there are {', '.join(MODES)}")
        config = replace(config, modes=MODES[mode])
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


def train(config: MultiresConfig, mode: Mode, folder: RunFolder) -> list[float]:
    """Train one mode to the end, logging every step; return the losses in order."""
    trainer = trainer_for(config, mode)
    losses = []
    with cli.progress(f"{mode.value:10}", config.train.steps) as advance:
        for record in trainer.steps():
            folder.log({"mode": mode.value, **record._asdict()})
            losses.append(record.loss)
            advance(f"{record.resolution} px  loss {record.loss:.4f}  {record.seconds:.2f} s")
    return losses


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
    mode: Annotated[
        str | None, typer.Option(help="naive, factorized, factorized+nll, both (the first two) or all.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; the preset's by default.")] = None,
    compile: cli.Compile = None,
    out: cli.Out = Path("runs"),
    dry_run: cli.DryRun = False,
) -> None:
    """Train one model on several resolutions at once, naive against factorized."""
    config = configured(
        preset, resolutions=resolutions, steps=steps, seed=seed, mode=mode, device=device, compiled=compile
    )
    if dry_run:
        print(json.dumps(plain(config)))
        return
    cli.check_device(config.device)
    counts = start_counting()
    losses: list[float] = []
    with RunFolder.create(out, "multires", config) as folder:
        cli.say(f"run folder {folder.path}")
        for chosen in config.modes:
            losses += train(config, chosen, folder)
        cli.last_line(document(config, folder, losses, counts))


if __name__ == "__main__":
    cli.run(multires)
