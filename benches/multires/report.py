"""What `benches.multires` writes at the end, from the run's log alone: CSV, figures and a Markdown report."""

from __future__ import annotations

from pathlib import Path

from benches.harness import lab_cli as cli
from benches.harness import markdown as reports
from benches.harness.figures import figure, smooth
from benches.harness.machine import machine_line
from benches.harness.run_folder import RunFolder
from benches.multires.presets import MultiresConfig
from benches.multires.run_log import Log
from diffusion.images import save_ground_truth


def _loss_curves(path: Path, log: Log, resolutions: tuple[int, ...]) -> None:
    with figure(path, rows=1, columns=len(resolutions), size=(4.2, 3.2)) as axes:
        for place, resolution in zip(axes[0], resolutions, strict=True):
            for mode, seed in dict.fromkeys((r["mode"], r["seed"]) for r in log.steps):
                mine = [r for r in log.steps if (r["mode"], r["seed"], r["resolution"]) == (mode, seed, resolution)]
                window = max(1, len(mine) // 25)
                curve = smooth([r["mse"] for r in mine], window)
                place.plot([r["step"] for r in mine], curve, label=f"{mode}, seed {seed}")
            place.set_title(f"{resolution} px")
            place.set_xlabel("step")
            place.set_ylabel("mean squared error of the target")
            place.legend(fontsize="small")


def _excess_curves(path: Path, log: Log, resolutions: tuple[int, ...]) -> None:
    last = max(r["step"] for r in log.validation)
    final = [r for r in log.validation if r["step"] == last]
    with figure(path, rows=1, columns=len(resolutions), size=(4.2, 3.2)) as axes:
        for place, resolution in zip(axes[0], resolutions, strict=True):
            here = [r for r in final if r["resolution"] == resolution]
            for mode, seed in dict.fromkeys((r["mode"], r["seed"]) for r in here):
                mine = [r for r in here if (r["mode"], r["seed"]) == (mode, seed)]
                levels = [r["logsnr"] for r in mine]
                place.plot(levels, [r["loss"] for r in mine], "o-", label=f"{mode}, seed {seed}")
            best = sorted({(r["logsnr"], r["optimal"]) for r in here if r["optimal"] is not None})
            if best:
                place.plot(*zip(*best, strict=True), "k--", label="least possible")
            place.set_title(f"{resolution} px, after {last} steps")
            place.set_xlabel("logSNR")
            place.set_ylabel("mean squared error of the target")
            place.legend(fontsize="small")


def write_report(config: MultiresConfig, folder: RunFolder) -> Log:
    """Write losses.csv, validation.csv, scores.csv, the figures and report.md; print the closing table."""
    log = Log(folder.records())
    resolutions = config.buckets.resolutions
    folder.write_csv("losses.csv", log.windows())
    save_ground_truth(folder.path / "ground_truth.png", config.source, resolutions, seed=config.train.seed)
    _loss_curves(folder.path / "losses.png", log, resolutions)
    parts = [
        "# multires: one model at several resolutions\n",
        f"Command: `{reports.command()}`  \nMachine: {machine_line()}  \n"
        "CPU seconds of all trainings: "
        f"{sum(r['cpu_seconds'] for r in log.steps):.0f}; {len(config.seeds)} seeds.\n",
        *(["## The answer\n", *(f"{i}. {line}" for i, line in enumerate(log.answer(), 1)), ""] if log.fits else []),
        "![losses](losses.png)\n\nGround truth:\n\n![ground truth](ground_truth.png)\n",
    ]
    if log.validation:
        folder.write_csv("validation.csv", log.validation)
        _excess_curves(folder.path / "validation.png", log, resolutions)
        header, rows = log.excess_table()
        cli.print_table("validation, averaged over noise levels", header, rows)
        parts += [
            "## Validation\n\nFixed images, noise and levels; averaged weights; mean over levels and seeds, with half "
            "of the 95 % t-interval over seeds.\n",
            reports.table(header, rows),
            "What the data allow to be said, paired by seed:\n",
            log.found(),
            "![validation](validation.png)\n",
        ]
    if log.fits:
        header, rows = log.fit_table()
        cli.print_table("checkerboard R2 of samples", header, rows)
        parts += ["## Are they boards?\n", reports.table(header, rows)]
    if log.scores:
        folder.write_csv("scores.csv", log.scores)
        parts.append(
            "## Panel over training\n\nz against independent true draws; below 3 is not told apart. `as true images "
            "with` is the damage to true images that has the last value. `perfect denoiser` is the least possible "
            "error under the same sampler: what the sampler costs. `overall` is the geometric mean of max(|z|, 1), and "
            "at least |z| of repetition.\n"
        )
        for mode in dict.fromkeys(r["mode"] for r in log.scores):
            for resolution in dict.fromkeys(r["resolution"] for r in log.scores):
                header, rows = log.panel_table(mode, resolution)
                cli.print_table(f"{mode}, {resolution} px", header, rows)
                parts += [f"{mode}, {resolution} px:\n", reports.table(header, rows)]
            last = max(r["step"] for r in log.scores if r["mode"] == mode)
            parts.append(f"![samples](samples-{mode}-{last:05d}.png)\n\n![panel](panel-{mode}.png)\n")
    folder.write_text("report.md", "\n".join(parts))
    return log
