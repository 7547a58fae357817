"""What the benches' command lines have in common: options, progress, errors and the last line.

Talk goes to stderr. The last line on stdout is one JSON document. Exit codes: 0 done, 1 failed, 2 refused.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import psutil
import typer

from benches.harness import lab_options as option
from benches.harness.compile_counts import CompileCounts, start_counting
from benches.harness.output import last_line, say
from benches.harness.overrides import overridden
from benches.harness.run_folder import RunFolder, plain
from diffusion.data import Checkerboards, ImageSource
from diffusion.errors import ConfigError, DiffusionError, LossDivergedError
from diffusion.parametrization import Mode, Target
from diffusion.training import TrainConfig


class LabConfig(Protocol):
    """The configuration of any bench of the lab, as far as the command line needs it."""

    @property
    def preset(self) -> str:
        """The preset that it came from."""
        ...

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, at least one."""
        ...

    @property
    def device(self) -> str:
        """Where it trains."""
        ...


C = TypeVar("C", bound=LabConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabOptions:
    """What the command line says of a configuration; None stands for what the preset has."""

    preset: str = "cpu"
    resolutions: str | None = None
    steps: int | None = None
    seed: int = 0
    seeds: int | None = None
    mode: str | None = None
    target: str | None = None
    device: str | None = None
    compiled: bool | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class LabBench(Generic[C]):
    """One bench of the lab: how it is configured, and how it is run."""

    name: str
    about: str
    """For its `--help`."""
    configured: Callable[[LabOptions], C]
    """Returns the preset with what the command line changed; raises `ConfigError` for what cannot be run."""
    run: Callable[[C, RunFolder, CompileCounts, bool], dict[str, Any]]
    """Runs it in a folder, from where an earlier run of it ended if the last argument says so; returns its document."""
    has_target: bool = False
    """Whether one may choose what is predicted."""
    estimate: Callable[[C], str] | None = None
    """Returns in words what a run would need, for `--dry-run`."""
    has_source: bool = False
    """Whether one may choose what is learned, or whether it is always boards, whose least possible loss is known."""


def parse_numbers(text: str, what: str) -> tuple[int, ...]:
    """Return '16,32' as (16, 32); raise `ConfigError` for anything that is not a list of positive integers."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{what} must be integers separated by commas, got {text!r}") from None
    if min(numbers) < 1:
        raise ConfigError(f"{what} must be positive, got {text!r}")
    return numbers


MODES = {mode.value: (mode,) for mode in Mode} | {"both": (Mode.NAIVE, Mode.FACTORIZED), "all": tuple(Mode)}


def parse_modes(text: str) -> tuple[Mode, ...]:
    """Return the modes that a name stands for; raise `ConfigError` for a name nobody defined."""
    if text not in MODES:
        raise ConfigError(f"unknown mode {text!r}; there are {', '.join(MODES)}")
    return MODES[text]


def parse_target(text: str) -> Target:
    """Return the target of a name; raise `ConfigError` for a name nobody defined."""
    if text not in set(Target):
        raise ConfigError(f"unknown target {text!r}; there are {', '.join(Target)}")
    return Target(text)


def source_of(name: str) -> ImageSource:
    """Return the source of a name; raise `ConfigError` for a name nobody defined."""
    if name == "digits":
        # Imported here: it needs a package that boards do not.
        from diffusion.digits import Digits

        return Digits()
    if name != "boards":
        raise ConfigError(f"unknown source {name!r}; there are boards, digits")
    return Checkerboards()


def training(config: TrainConfig, options: LabOptions) -> TrainConfig:
    """Return a preset's training with the seed, the steps and the way to compile of the command line."""
    config = replace(config, seed=options.seed)
    if options.steps is not None:
        config = replace(config, steps=options.steps)
    return config if options.compiled is None else replace(config, compile=options.compiled)


def seeds_of(of_preset: tuple[int, ...], options: LabOptions) -> tuple[int, ...]:
    """Return as many seeds as the preset or the command line asks for, counted up from the command line's."""
    count = len(of_preset) if options.seeds is None else options.seeds
    if count < 1:
        raise ConfigError(f"--seeds must be positive, got {count}")
    return tuple(options.seed + i for i in range(count))


def open_folder(out: Path, bench: str, config: Any, *, resume: Path | None, tensorboard: bool) -> RunFolder:
    """Return a new numbered run folder, or the one to resume; tell people where it is."""
    folder = (
        RunFolder.create(out, bench, config, tensorboard=tensorboard)
        if resume is None
        else RunFolder.reopen(resume, config, tensorboard=tensorboard)
    )
    say(f"run folder {folder.path}")
    return folder


def check_device(device: str) -> None:
    """Raise `ConfigError` unless torch can use the device here."""
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ConfigError(f"unknown device {device!r}; use cpu, cuda or cuda:N") from None
    if kind not in {"cpu", "cuda"}:
        raise ConfigError(f"the benches run on cpu and cuda, not on {kind}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda was asked for, but torch sees no CUDA device here")


def seconds_since_start() -> float:
    """Return wall-clock seconds since this process was started, imports included."""
    return time.time() - psutil.Process().create_time()


def document(
    bench: str, config: LabConfig, folder: RunFolder, counts: CompileCounts, more: dict[str, Any]
) -> dict[str, Any]:
    """Return a bench's last line: what all have in common, and more."""
    return {
        "bench": bench,
        "preset": config.preset,
        "seed": config.seeds[0],
        "seconds": seconds_since_start(),
        "graphs": counts.graphs,
        **more,
        "out": str(folder.path),
    }


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Give a function that advances by one step: a bar on a terminal, about ten plain lines elsewhere."""
    if not sys.stderr.isatty():
        done = 0

        def tell(text: str) -> None:
            nonlocal done
            done += 1
            if done == total or done % max(1, total // 10) == 0:
                say(f"{title} {done}/{total} {text}")

        yield tell
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total, text="")
        yield lambda text: bar.update(task, advance=1, text=text)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for people on stderr."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in header:
        table.add_column(name, justify="left" if name == header[0] else "right")
    for row in rows:
        table.add_row(*row)
    Console(stderr=True, width=None if sys.stderr.isatty() else 120).print(table)


def run(bench: LabBench[Any]) -> NoReturn:
    """Run a bench as its command line says.

    A refusal is one sentence on stderr and exit code 2, a divergence exit code 1.
    """
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(_command(bench))
    try:
        app(standalone_mode=True)
    except LossDivergedError as error:
        say(f"failed: {error}")
        sys.exit(1)
    except DiffusionError as error:
        say(f"error: {error}")
        sys.exit(2)
    sys.exit(0)


def _command(bench: LabBench[C]) -> Callable[..., None]:
    def command(
        preset: option.Preset = "cpu",
        resolutions: option.Resolutions = None,
        steps: option.Steps = None,
        seed: option.Seed = 0,
        seeds: option.Seeds = None,
        mode: option.ModeChoice = None,
        target: option.TargetChoice = None,
        device: option.Device = None,
        compile: option.Compile = None,
        out: option.Out = Path("runs"),
        resume: option.Resume = None,
        source: option.Source = None,
        set_: option.Set = None,
        tensorboard: option.TensorBoard = False,
        dry_run: option.DryRun = False,
    ) -> None:
        options = LabOptions(
            preset=preset,
            resolutions=resolutions,
            steps=steps,
            seed=seed,
            seeds=seeds,
            mode=mode,
            target=target,
            device=device,
            compiled=compile,
            source=source,
        )
        config = overridden(bench.configured(options), set_ or ())
        if dry_run:
            if bench.estimate is not None:
                say(bench.estimate(config))
            print(json.dumps(plain(config)))
            return
        check_device(config.device)
        counts = start_counting()
        with open_folder(out, bench.name, config, resume=resume, tensorboard=tensorboard) as folder:
            last_line(bench.run(config, folder, counts, resume is not None))

    command.__doc__ = bench.about
    # typer reads the options from the signature.
    signature = inspect.signature(command, eval_str=True)
    offered = {"target": bench.has_target, "source": bench.has_source}
    shown = [one for one in signature.parameters.values() if offered.get(one.name, True)]
    command.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    return command
