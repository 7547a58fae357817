"""Where should FLOPs go: depth, interface depth, width, another kind of feed-forward layer, or more steps?

    python -m benches.backbones --preset cpu        some minutes
    python -m benches.backbones --preset cpu-long   the run behind benches/results/backbones

Learning rates are tuned for each width under muP; then every variant is trained on each of several budgets, at all
resolutions, and for equally many steps as a control. Every cell (variant, seed, what it may spend, rate) is a record in
stats.jsonl, failed ones too; `--resume` runs the cells that are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benches.backbones.cells import IDENTITY, Cell, best_rates, grid_cells, run_cell, tuning_cells
from benches.backbones.presets import BackbonesConfig, preset
from benches.harness import lab_cli as cli
from benches.harness.compile_counts import CompileCounts
from benches.harness.run_folder import RunFolder, latest
from diffusion.parametrization import Mode


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


def run_cells(config: BackbonesConfig, folder: RunFolder, cells: Sequence[Cell], title: str) -> None:
    """Run every cell that the folder does not hold yet; a cell that fails is recorded and the next one runs."""
    done = {tuple(r[name] for name in IDENTITY) for r in latest(folder.records(), "cell", *IDENTITY)}
    with cli.progress(title, len(cells)) as advance:
        for cell in cells:
            name = f"{cell.variant.name}, seed {cell.seed}, {cell.spent}, rate {cell.rate:g}"
            if cell.identity in done:
                advance(f"{name}: already there")
                continue
            labels = dict(zip(IDENTITY, cell.identity, strict=True)) | {"axis": cell.variant.axis}
            try:
                result = run_cell(config, cell)
            except Exception as error:  # noqa: BLE001 (whatever breaks one cell must not cost the others)
                result = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
            folder.log({"kind": "cell"} | labels | result)
            advance(f"{name}: {result['status']}")


def run_grid(config: BackbonesConfig, folder: RunFolder) -> None:
    """Find each width's rate, and run the grid with it."""
    run_cells(config, folder, tuning_cells(config), "rates")
    rates = best_rates(config, latest(folder.records(), "cell", *IDENTITY))
    run_cells(config, folder, grid_cells(config, rates), "backbones")


def run(config: BackbonesConfig, folder: RunFolder, counts: CompileCounts, _resume: bool) -> dict[str, Any]:
    """Run every cell that is missing, and report; return the bench's last line."""
    run_grid(config, folder)
    from benches.backbones.report import write_report

    summary = write_report(config, folder)
    return cli.document("backbones", config, folder, counts, {"summary": summary})


BENCH = cli.LabBench(
    name="backbones",
    about="Compare backbones trained on equal budgets of effective operations; --steps caps every run.",
    configured=configured,
    run=run,
)

if __name__ == "__main__":
    cli.run(BENCH)
