"""What `benches.gradients` writes at the end, from the run's log alone: CSV, figures and a Markdown report."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benches.gradients.presets import GradientsConfig
from benches.harness import lab_cli as cli
from benches.harness import markdown as reports
from benches.harness import paired
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
    """Draw one quantity of the first seed against logSNR: a row of axes a target, a column a resolution."""
    resolutions = config.buckets.resolutions
    with figure(path, rows=len(config.targets), columns=len(resolutions), size=(3.8, 2.7)) as axes:
        for line, target in zip(axes, config.targets, strict=True):
            for place, resolution in zip(line, resolutions, strict=True):
                for mode in config.modes:
                    key = ("trained", target.value, mode.value, resolution)
                    mine = [r for r in rows if (r["phase"], r["target"], r["mode"], r["resolution"]) == key]
                    mine = [r for r in mine if r["seed"] == config.seeds[0]]
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
    """Draw heat maps of the first seed's cosines between noise levels: rows are targets and modes, columns sides."""
    cells = [(target, mode) for target in config.targets for mode in config.modes]
    resolutions = config.buckets.resolutions
    with figure(path, rows=len(cells), columns=len(resolutions), size=(2.6, 2.4)) as axes:
        for line, (target, mode) in zip(axes, cells, strict=True):
            for place, resolution in zip(line, resolutions, strict=True):
                key = ("trained", target.value, mode.value, resolution)
                for r in rows:
                    same = (r["phase"], r["target"], r["mode"], r["resolution"]) == key
                    if same and r["seed"] == config.seeds[0]:
                        seen = [[math.nan if c is None else c[0] for c in row] for row in r["matrix"]]
                        place.set_facecolor("0.7")  # where there is no signal; white is a cosine of 0
                        place.imshow(seen, vmin=-1, vmax=1, cmap="RdBu_r", origin="lower")
                place.set_title(f"{target.value}, {mode.value}, {resolution} px", fontsize="x-small")


def scaling(config: GradientsConfig, rows: list[Record]) -> list[Record]:
    """Return how the gradient norm, averaged over levels, goes from the smallest to the largest resolution, a seed.

    `exponent` is p in norm ~ side^p between the two; None with one resolution or a vanishing gradient.
    """
    small, large = min(config.buckets.resolutions), max(config.buckets.resolutions)
    cells: dict[tuple[Any, ...], dict[int, list[float]]] = {}
    for r in rows:
        key = (r["phase"], r["target"], r["mode"], r["seed"])
        cells.setdefault(key, {}).setdefault(r["resolution"], []).append(r["mean_gradient_norm"])
    summary = []
    for (phase, target, mode, seed), norms in cells.items():
        smallest, largest = (sum(norms[side]) / len(norms[side]) for side in (small, large))
        ratio = largest / smallest if large > small and min(smallest, largest) > 0 else None
        summary.append(
            {
                "phase": phase,
                "target": target,
                "mode": mode,
                "seed": seed,
                "smallest": smallest,
                "largest": largest,
                "ratio": ratio,
                "exponent": None if ratio is None else math.log(ratio) / math.log(large / small),
            }
        )
    return summary


def scaling_table(summary: list[Record]) -> list[list[str]]:
    """Return a row a phase, target and mode: means over seeds, with half of their 95 % t-interval."""
    groups: dict[str, list[Record]] = {}
    for r in summary:
        groups.setdefault(f"{r['phase']}, {r['target']}, {r['mode']}", []).append(r)
    names = ("smallest", "largest", "ratio", "exponent")
    return [
        [label, *(paired.mean_words([r[name] for r in group if r[name] is not None]) for name in names)]
        for label, group in groups.items()
    ]


def exponents(config: GradientsConfig, summary: list[Record]) -> str:
    """Return in words which trained exponents can be told apart, paired by seed: modes, and targets to the first."""
    known = {
        (r["target"], r["mode"], r["seed"]): r["exponent"]
        for r in summary
        if r["phase"] == "trained" and r["exponent"] is not None
    }

    def of(target: str, mode: str) -> dict[int, float]:
        return {seed: p for (t, m, seed), p in known.items() if (t, m) == (target, mode)}

    cells = [(target.value, mode.value) for target in config.targets for mode in config.modes]
    lines = []
    for target, mode in cells[1:]:
        interval = paired.known(paired.differences(of(target, mode), of(*cells[0])))
        name, base = f"{target}, {mode}", ", ".join(cells[0])
        if interval is None:
            lines.append(f"- {name} cannot be compared to {base}: an interval needs two seeds.")
        elif interval.holds_zero:
            lines.append(f"- {name} and {base} cannot be told apart ({interval.low:+.2f} to {interval.high:+.2f}).")
        else:
            more = "steeper" if interval.low > 0 else "flatter"
            lines.append(f"- {name} is {more} than {base} ({interval.low:+.2f} to {interval.high:+.2f}).")
    return "\n".join(lines) + "\n" if lines else "One cell was run: there is nothing to compare.\n"


def conflicts(rows: list[Record]) -> list[list[str]]:
    """Return how alike the gradients of different levels are, from the cosines of which anything is known.

    A pair conflicts where the whole interval of its cosine is negative, and agrees where it is positive.
    """
    table = []
    for r in rows:
        if r["phase"] != "trained":
            continue
        matrix = r["matrix"]
        pairs = [matrix[i][j] for i in range(len(matrix)) for j in range(i)]
        known = [pair for pair in pairs if pair is not None]
        name = f"{r['target']}, {r['mode']}, {r['resolution']} px, seed {r['seed']}"
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
        f"images. Of {known} cosines of which anything is known, {agree} are positive, {conflict} negative "
        f"and of {known - agree - conflict} the sign is open (95 % intervals, one by one: one in twenty is wrong). "
        "At the start only the head has gradients, so naive and factorized agree there by construction. Each point and "
        "cosine is of one seed's weights; what differs between targets and modes is claimed below, over seeds.\n"
    )


def write_report(config: GradientsConfig, folder: RunFolder) -> list[Record]:
    """Write gradients.csv, the figures and report.md, print the summary, and return it."""
    records = folder.records()
    rows = latest(records, "gradients", "phase", "target", "mode", "seed", "resolution", "logsnr")
    cosines = latest(records, "cosines", "phase", "target", "mode", "seed", "resolution")
    folder.write_csv("gradients.csv", rows)
    for name in CURVES:
        _curves(folder.path / f"{name}.png", config, rows, name)
    _cosines(folder.path / "cosines.png", config, cosines)
    summary = scaling(config, rows)
    folder.write_csv("scaling.csv", summary)
    header = ["phase, target, mode", f"{min(config.buckets.resolutions)} px",
              f"{max(config.buckets.resolutions)} px", "ratio", "exponent"]  # fmt: skip
    body = scaling_table(summary)
    cli.print_table("norm of the mean gradient, averaged over levels", header, body)
    parts = [
        "# gradients: losses and gradients against the noise level\n",
        f"Command: `{reports.command()}`  \nMachine: {machine_line()}  \n"
        f"Seeds {', '.join(map(str, config.seeds))}; {config.train.steps} steps; "
        f"{config.levels} levels of {config.images} images.\n",
        "## The answer\n",
        found(rows, cosines),
        "## Norm of the mean gradient, averaged over levels\n",
        reports.table(header, body),
        "Exponents after training, paired by seed (95 % t-intervals of the difference):\n",
        exponents(config, summary),
        "## Cosines between the gradients of different noise levels, after training\n",
        reports.table(["target, mode, resolution, seed", "known", "mean", "agree", "conflict"], conflicts(cosines)),
        "![cosines](cosines.png)\n",
        *(f"## {title}\n\n![{name}]({name}.png)\n" for name, title in CURVES.items()),
    ]
    folder.write_text("report.md", "\n".join(parts))
    return summary
