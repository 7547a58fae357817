"""The options that the command lines of the lab's benches have in common, as typer reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Preset = Annotated[str, typer.Option(help="Sizes and lengths: demo, cpu, cpu-long or gpu.")]
Resolutions = Annotated[str | None, typer.Option(help="Sides in pixels, separated by commas, such as 16,32,64.")]
Steps = Annotated[int | None, typer.Option(help="Training steps; the preset's own by default.")]
Seed = Annotated[int, typer.Option(help="The number that all randomness follows from.")]
Seeds = Annotated[
    int | None, typer.Option(help="How many seeds, counted up from --seed: an interval needs two, a claim three.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; the preset's by default.")]
Out = Annotated[Path, typer.Option(help="Where run folders are made.")]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Print the configuration and stop.")]
Compile = Annotated[bool | None, typer.Option(help="Use torch.compile for training; the preset decides by default.")]
Resume = Annotated[Path | None, typer.Option(help="An earlier run folder of this bench to continue.")]
ModeChoice = Annotated[
    str | None, typer.Option("--mode", help="naive, factorized, factorized+nll, both (the first two) or all.")
]
TargetChoice = Annotated[str | None, typer.Option("--target", help="What is predicted: x0, epsilon or v.")]
Source = Annotated[str | None, typer.Option(help="What is learned: boards, or digits (scikit-learn's).")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="PATH=VALUE, any field of the configuration; may be repeated.")
]
TensorBoard = Annotated[bool, typer.Option(help="Also write TensorBoard events.")]
