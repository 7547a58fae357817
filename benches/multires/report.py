"""What `benches.multires` writes at the end, from the run's log alone: CSV, figures and a Markdown report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benches.harness import lab_cli as cli
from benches.harness import markdown as reports
from benches.harness import paired
from benches.harness.figures import figure, smooth
from benches.harness.machine import machine_line
from benches.harness.run_folder import RunFolder, latest
from benches.multires.presets import MultiresConfig
from diffusion.images import save_ground_truth
from diffusion.metrics.panel import overall

Record = dict[str, Any]


class Log:
    """A run's log, sorted by what its records are about."""

    def __init__(self, records: list[Record]) -> None:
        self.steps = latest(records, "step", "mode", "seed", "step")
        self.validation = latest(records, "validation", "mode", "seed", "step", "resolution", "t")
        self.scores = latest(records, "score", "mode", "seed", "step", "resolution", "metric")
        self.fits = latest(records, "fit", "mode", "seed", "step", "resolution")
        self.perfect = latest(records, "perfect", "resolution", "metric")

    def losses(self) -> list[float]:
        """Return the loss of every step, seed after seed and mode after mode."""
        return [record["loss"] for record in self.steps]

    def panel_table(self, mode: str, resolution: int) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of z per metric over training, what the last is worth, and a perfect denoiser's z.

        z is the mean over seeds; the damage is that of the first seed.
        """
        mine = [r for r in self.scores if r["mode"] == mode and r["resolution"] == resolution]
        times = sorted({r["step"] for r in mine})
        seeds = list(dict.fromkeys(r["seed"] for r in mine))
        names = list(dict.fromkeys(r["metric"] for r in mine))
        z = {(r["metric"], r["step"], r["seed"]): r["z"] for r in mine}
        words = {r["metric"]: r["equivalent"] for r in mine if (r["step"], r["seed"]) == (times[-1], seeds[0])}
        best = {r["metric"]: r["z"] for r in self.perfect if r["resolution"] == resolution}
        rows = [
            [
                name,
                *(f"{_mean([z[name, step, seed] for seed in seeds]):.1f}" for step in times),
                words[name],
                f"{best[name]:.1f}" if best else "-",
            ]
            for name in names
        ]
        together = [
            paired.mean_words([overall({name: z[name, step, seed] for name in names}) for seed in seeds])
            for step in times
        ]
        rows.append(["overall", *together, "-", f"{overall(best):.2f}" if best else "-"])
        return ["z at step", *map(str, times), "as true images with", "perfect denoiser"], rows

    def fit_table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the median checkerboard R2 of samples over training, and of true draws."""
        times = sorted({r["step"] for r in self.fits})
        groups: dict[tuple[str, int], list[Record]] = {}
        for r in self.fits:
            groups.setdefault((r["mode"], r["resolution"]), []).append(r)
        rows = [
            [f"{mode}, {resolution} px"]
            + [paired.mean_words([r["r2"] for r in group if r["step"] == step]) for step in times]
            + [f"{group[0]['true']:.3f}"]
            for (mode, resolution), group in groups.items()
        ]
        return ["median R2 at step", *map(str, times), "true draws"], rows

    def last(self, name: str) -> dict[tuple[str, int], dict[int, float]]:
        """Return a measure of the last validation, averaged over noise levels: (mode, resolution) -> seed -> value.

        Empty where it is unknown at some level.
        """
        end = max((r["step"] for r in self.validation), default=0)
        groups: dict[tuple[str, int], dict[int, list[float | None]]] = {}
        for r in self.validation:
            if r["step"] == end:
                groups.setdefault((r["mode"], r["resolution"]), {}).setdefault(r["seed"], []).append(r[name])
        return {
            key: {seed: _mean([v for v in values if v is not None]) for seed, values in group.items()}
            for key, group in groups.items()
            if all(v is not None for values in group.values() for v in values)
        }

    def excess_table(self) -> tuple[list[str], list[list[str]]]:
        """Return header and rows of the last validation, averaged over noise levels; ± is half a 95 % interval."""
        columns = {name: self.last(name) for name in ("loss", "optimal", "excess", "mse_x0")}
        rows = [
            [f"{mode}, {resolution} px"]
            + [paired.mean_words(list(column.get((mode, resolution), {}).values())) for column in columns.values()]
            for mode, resolution in columns["loss"]
        ]
        return ["mode", "loss", "least possible", "excess", "as MSE of x0"], rows

    def found(self) -> str:
        """Return in words, one sentence a resolution and mode, how the modes compare to the first."""
        losses = self.last("loss")
        modes = list(dict.fromkeys(mode for mode, _ in losses))
        lines = []
        for resolution in dict.fromkeys(resolution for _, resolution in losses):
            for mode in modes[1:]:
                values = paired.differences(losses[mode, resolution], losses[modes[0], resolution])
                lines.append(f"- Loss at {resolution} px: {paired.verdict(values, mode, modes[0])}.")
        return "\n".join(lines) + "\n" if lines else "One mode was run: there is nothing to compare.\n"


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


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


def write_report(config: MultiresConfig, folder: RunFolder, seconds: float) -> Log:
    """Write losses.csv, validation.csv, scores.csv, the figures and report.md; print the closing table."""
    log = Log(folder.records())
    resolutions = config.buckets.resolutions
    folder.write_csv("losses.csv", log.steps)
    save_ground_truth(folder.path / "ground_truth.png", config.source, resolutions, seed=config.train.seed)
    _loss_curves(folder.path / "losses.png", log, resolutions)
    parts = [
        "# multires: naive against factorized on shared resolutions\n",
        f"Command: `{reports.command()}`  \nMachine: {machine_line()}  \n"
        f"Wall seconds: {seconds:.0f}, CPU seconds: {time.process_time():.0f}.\n",
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
