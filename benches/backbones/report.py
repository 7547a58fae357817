"""What `benches.backbones` writes at the end, from the run's log alone: CSV, figure and a Markdown report."""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path
from typing import Any

from benches.backbones.presets import BackbonesConfig
from benches.harness import lab_cli as cli
from benches.harness import markdown as reports
from benches.harness import paired
from benches.harness.figures import figure
from benches.harness.machine import machine_line
from benches.harness.run_folder import RunFolder, latest

Record = dict[str, Any]


def summarise(config: BackbonesConfig, cells: list[Record]) -> list[Record]:
    """Return one record a variant: mean excess loss, and its paired differences to the base of the same seed.

    `benefit` is the drop of the excess per doubling of the effective operations of one forward pass, at equal training
    budget; positive means that the FLOPs are well spent there. None for the base, for failed variants, and where the
    operations differ by less than 2 %: then only the plain difference says something.
    """
    summary: list[Record] = []
    base = {c["seed"]: c for c in cells if c["variant"] == config.variants[0].name and c["status"] == "ok"}
    for variant in config.variants:
        mine = [c for c in cells if c["variant"] == variant.name]
        good = [c for c in mine if c["status"] == "ok"]
        record: Record = {"variant": variant.name, "axis": variant.axis, "failed": len(mine) - len(good)}
        if good:
            gains = paired.differences(
                {seed: c["excess"] for seed, c in base.items()}, {c["seed"]: c["excess"] for c in good}
            )
            interval = paired.known(gains)
            doublings = (
                math.log2(good[0]["effective_flops"] / next(iter(base.values()))["effective_flops"]) if base else 0.0
            )
            gain = statistics.mean(gains) if gains else None
            record |= {
                "steps": good[0]["steps"],
                "parameters": good[0]["parameters"],
                "effective_flops": good[0]["effective_flops"],
                "dense_flops": good[0]["dense_flops"],
                "counted_flops": good[0]["counted_flops"],
                "seconds": statistics.mean(c["seconds"] for c in good),
                "excess": statistics.mean(c["excess"] for c in good),
                "gain": gain,
                "gain_low": None if interval is None else interval.low,
                "gain_high": None if interval is None else interval.high,
                "gains": gains,
                "doublings": doublings,
                "benefit": gain / doublings if gain is not None and abs(doublings) > 0.03 else None,
                "benefits": [value / doublings for value in gains] if abs(doublings) > 0.03 else [],
            }
        summary.append(record)
    return summary


def found(summary: list[Record]) -> str:
    """Return in words how each variant compares to the base."""
    lines = [
        f"- {paired.verdict([-gain for gain in r['gains']], r['variant'], summary[0]['variant'])}."
        for r in summary[1:]
        if r.get("gains")
    ]
    return "\n".join(lines) + "\n" if lines else "No variant was compared to the base.\n"


def _figure(path: Path, summary: list[Record]) -> None:
    with figure(path, rows=1, columns=1, size=(6.5, 4.2)) as axes:
        place = axes[0][0]
        good = [r for r in summary if r.get("excess") is not None]
        for axis in dict.fromkeys(r["axis"] for r in good):
            line = sorted((r for r in good if r["axis"] in {axis, "base"}), key=lambda r: r["effective_flops"])
            x = [r["effective_flops"] for r in line]
            reach = [0.0 if r["gain_low"] is None else (r["gain_high"] - r["gain_low"]) / 2 for r in line]
            place.errorbar(x, [r["excess"] for r in line], yerr=reach, fmt="o-", label=axis)
        for r in good:
            place.annotate(r["variant"], (r["effective_flops"], r["excess"]), fontsize="x-small")
        place.set_xscale("log")
        place.set_xlabel("effective operations of one forward pass on one image")
        place.set_ylabel("excess over the least possible loss")
        place.legend(fontsize="small")


def write_report(config: BackbonesConfig, folder: RunFolder, seconds: float) -> list[Record]:
    """Write cells.csv, summary.csv, the figure and report.md, print the table, and return the summary."""
    cells = latest(folder.records(), "cell", "variant", "seed")
    summary = summarise(config, cells)
    names = list(dict.fromkeys(name for c in cells for name in c))
    folder.write_csv("cells.csv", [{name: c.get(name, "") for name in names} for c in cells])
    _figure(folder.path / "excess.png", summary)
    header = ["variant", "steps", "effective", "dense", "counted", "s a run", "excess", "gain over base", "a doubling"]
    body = []
    for r in summary:
        if "excess" not in r:
            body.append([r["variant"], *["-"] * 7, "failed"])
            continue
        body.append(
            [r["variant"], str(r["steps"])]
            + [f"{r[name] / 1e6:.2f} M" for name in ("effective_flops", "dense_flops", "counted_flops")]
            + [f"{r['seconds']:.1f}", reports.number(r["excess"])]
            + [paired.mean_words(r["gains"]), paired.mean_words(r["benefits"])]
        )
    cli.print_table(f"equal budgets of {config.budget_flops:.3g} effective operations", header, body)
    parts = [
        "# backbones: what a FLOP is worth, and where\n",
        f"Command: `{reports.command()}`  \nMachine: {machine_line()}  \n"
        f"Wall seconds: {seconds:.0f}, CPU seconds: {time.process_time():.0f}.\n",
        f"Every run has {config.budget_flops:.3g} effective training operations; {len(config.seeds)} seeds, paired. "
        "Operations are per forward pass on one image of the largest resolution; `counted` is torch's counter. "
        "`gain` is the drop of the excess against the base, paired by seed, `a doubling` the gain per doubling of the "
        "operations of a forward pass; ± is half of the 95 % t-interval.\n",
        reports.table(header, body),
        "What the data allow to be said of the excess:\n",
        found(summary),
        "![excess](excess.png)\n",
    ]
    failed = [c for c in cells if c["status"] != "ok"]
    if failed:
        parts.append("Failed cells:\n")
        parts += [f"- {c['variant']}, seed {c['seed']}: {c['error']}" for c in failed]
    folder.write_text("report.md", "\n".join(parts) + "\n")
    return summary
