"""What `benches.gradients` writes at the end, from the run's log alone: CSV, figures and a Markdown report."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from benches.gradients.presets import GradientsConfig
from benches.harness import lab_cli as cli
from benches.harness import markdown as reports
from benches.harness.figures import figure
from benches.harness.machine import machine_line
from benches.harness.run_folder import RunFolder, latest

Record = dict[str, Any]

CURVES = {
    "loss_mean": "loss",
    "loss_spatial_spread": "spread of the loss over pixels / mean",
    "mean_gradient_norm": "norm of the mean gradient",
    "gradient_variance": "gradient variance, tr Sigma",
    "signal_share": "signal over noise of one image, 1 / noise scale",
    "kurtosis_over_parameters": "excess kurtosis over parameters",
    "l_kurtosis_over_parameters": "L-kurtosis over parameters (normal: 0.123)",
    "l_kurtosis_over_images": "L-kurtosis over images (normal: 0.123)",
}
LINEAR = {
    "loss_spatial_spread",
    "signal_share",
    "kurtosis_over_parameters",
    "l_kurtosis_over_parameters",
    "l_kurtosis_over_images",
}


def _curves(path: Path, config: GradientsConfig, rows: list[Record], name: str) -> None:
    """Draw one quantity against logSNR: a row of axes for each target, a column for each resolution."""
    resolutions = config.buckets.resolutions
    with figure(path, rows=len(config.targets), columns=len(resolutions), size=(3.8, 2.7)) as axes:
        for line, target in zip(axes, config.targets, strict=True):
            for place, resolution in zip(line, resolutions, strict=True):
                for mode in config.modes:
                    key = ("trained", target.value, mode.value, resolution)
                    mine = [r for r in rows if (r["phase"], r["target"], r["mode"], r["resolution"]) == key]
                    levels = [r["logsnr"] for r in mine]
                    place.plot(levels, [r[name] for r in mine], "o-", markersize=3, label=mode.value)
                    if mine and f"{name}_low" in mine[0]:
                        low, high = ([r[f"{name}_{end}"] for r in mine] for end in ("low", "high"))
                        place.fill_between(levels, low, high, alpha=0.2)
                if name not in LINEAR:
                    place.set_yscale("log")
                place.set_title(f"{target.value}, {resolution} px", fontsize="small")
                place.set_xlabel("logSNR")
        axes[0][0].set_ylabel(CURVES[name], fontsize="small")
        axes[0][0].legend(fontsize="small")


def _cosines(path: Path, config: GradientsConfig, rows: list[Record]) -> None:
    """Draw heat maps of the cosines between noise levels: rows are targets and modes, columns are resolutions."""
    cells = [(target, mode) for target in config.targets for mode in config.modes]
    resolutions = config.buckets.resolutions
    with figure(path, rows=len(cells), columns=len(resolutions), size=(2.6, 2.4)) as axes:
        for line, (target, mode) in zip(axes, cells, strict=True):
            for place, resolution in zip(line, resolutions, strict=True):
                key = ("trained", target.value, mode.value, resolution)
                for r in rows:
                    if (r["phase"], r["target"], r["mode"], r["resolution"]) == key:
                        seen = [[math.nan if c is None else c[0] for c in row] for row in r["matrix"]]
                        place.set_facecolor("0.7")  # where there is no signal; white is a cosine of 0
                        place.imshow(seen, vmin=-1, vmax=1, cmap="RdBu_r", origin="lower")
                place.set_title(f"{target.value}, {mode.value}, {resolution} px", fontsize="x-small")


def scaling(config: GradientsConfig, rows: list[Record]) -> list[Record]:
    """Return how the gradient norm, averaged over levels, goes from the smallest to the largest resolution.

    `exponent` is p in norm ~ side^p between the two; None with one resolution or a vanishing gradient.
    """
    small, large = min(config.buckets.resolutions), max(config.buckets.resolutions)
    summary = []
    for phase in dict.fromkeys(r["phase"] for r in rows):
        for target in config.targets:
            for mode in config.modes:
                cell = [r for r in rows if (r["phase"], r["target"], r["mode"]) == (phase, target.value, mode.value)]
                norms = {}
                for side in (small, large):
                    values = [r["mean_gradient_norm"] for r in cell if r["resolution"] == side]
                    norms[side] = sum(values) / len(values)
                known = large > small and min(norms.values()) > 0
                ratio = norms[large] / norms[small] if known else None
                summary.append(
                    {
                        "phase": phase,
                        "target": target.value,
                        "mode": mode.value,
                        "smallest": norms[small],
                        "largest": norms[large],
                        "ratio": ratio,
                        "exponent": None if ratio is None else math.log(ratio) / math.log(large / small),
                    }
                )
    return summary


def conflicts(rows: list[Record]) -> list[list[str]]:
    """Return how alike the gradients of different levels are, from the cosines that can be told from noise at all.

    A pair conflicts where the whole interval of its cosine is negative, and agrees where it is positive.
    """
    table = []
    for r in rows:
        if r["phase"] != "trained":
            continue
        matrix = r["matrix"]
        pairs = [matrix[i][j] for i in range(len(matrix)) for j in range(i)]
        known = [pair for pair in pairs if pair is not None]
        name = f"{r['target']}, {r['mode']}, {r['resolution']} px"
        agree, conflict = sum(low > 0 for _, low, _ in known), sum(high < 0 for _, _, high in known)
        mean = reports.number(sum(c for c, _, _ in known) / len(known)) if known else "-"
        table.append([name, f"{len(known)} of {len(pairs)}", mean, str(agree), str(conflict)])
    return table


def found(rows: list[Record], cosines: list[Record]) -> str:
    """Return in words what the run allows to be said; a claim needs an interval that does not hold the contrary."""
    trained = [r for r in rows if r["phase"] == "trained"]
    silent = sum(r["signal_share_low"] <= 0 for r in trained)
    table = conflicts(cosines)
    known = sum(int(row[1].split(" of ")[0]) for row in table)
    agree, conflict = (sum(int(row[i]) for row in table) for i in (3, 4))
    return (
        f"At {len(trained) - silent} of {len(trained)} trained points the signal can be told from the noise of the "
        f"images. Of {known} cosines between levels that both have a signal, {agree} are positive, {conflict} negative "
        f"and of {known - agree - conflict} the sign is open (95 % intervals, one by one: one in twenty is wrong). "
        "At the start only the head has gradients, so naive and factorized agree there by construction. One seed: what "
        "differs between targets, modes and resolutions holds for these weights and is no claim about others.\n"
    )


def write_report(config: GradientsConfig, folder: RunFolder, seconds: float) -> list[Record]:
    """Write gradients.csv, the figures and report.md, print the summary, and return it."""
    records = folder.records()
    rows = latest(records, "gradients", "phase", "target", "mode", "resolution", "logsnr")
    cosines = latest(records, "cosines", "phase", "target", "mode", "resolution")
    folder.write_csv("gradients.csv", rows)
    for name in CURVES:
        _curves(folder.path / f"{name}.png", config, rows, name)
    _cosines(folder.path / "cosines.png", config, cosines)
    summary = scaling(config, rows)
    folder.write_csv("scaling.csv", summary)
    header = ["phase, target, mode", f"{min(config.buckets.resolutions)} px",
              f"{max(config.buckets.resolutions)} px", "ratio", "exponent"]  # fmt: skip
    body = [
        [f"{r['phase']}, {r['target']}, {r['mode']}"]
        + [reports.number(r[name]) for name in ("smallest", "largest", "ratio", "exponent")]
        for r in summary
    ]
    cli.print_table("norm of the mean gradient, averaged over levels", header, body)
    parts = [
        "# gradients: losses and gradients against the noise level\n",
        f"Command: `{reports.command()}`  \nMachine: {machine_line()}  \n"
        f"Wall seconds: {seconds:.0f}, CPU seconds: {time.process_time():.0f}.\n",
        "## What was found\n",
        found(rows, cosines),
        "## Norm of the mean gradient, averaged over levels\n",
        reports.table(header, body),
        "## Cosines between the gradients of different noise levels, after training\n",
        reports.table(["target, mode, resolution", "known", "mean", "agree", "conflict"], conflicts(cosines)),
        "![cosines](cosines.png)\n",
        *(f"## {title}\n\n![{name}]({name}.png)\n" for name, title in CURVES.items()),
    ]
    folder.write_text("report.md", "\n".join(parts))
    return summary
