"""What `benches.backbones` writes at the end, from the run's log alone: CSV, figure and a Markdown report."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benches.backbones.cells import EQUAL_STEPS, IDENTITY, tuning_cells, width_of, words
from benches.backbones.marginal import Grid, Worth, of_budget, worth_words, worths
from benches.backbones.presets import BackbonesConfig
from benches.harness import lab_cli as cli
from benches.harness import markdown as reports
from benches.harness import paired
from benches.harness.figures import figure
from benches.harness.machine import machine_line
from benches.harness.run_folder import RunFolder, latest

Record = dict[str, Any]
Table = tuple[list[str], list[list[str]]]


def rate_table(config: BackbonesConfig, cells: list[Record], grid: Grid) -> Table:
    """Return header and rows of the mean excess of each width at each rate, the best in bold."""
    body = []
    tuned = tuning_cells(config)
    for width, best in grid.rates.items():
        line = [f"width {width}"]
        for rate in config.rates:
            wanted = {c.identity for c in tuned if c.rate == rate and width_of(config, c.variant) == width}
            mine = [c["excess"] for c in cells if c["status"] == "ok" and tuple(c[n] for n in IDENTITY) in wanted]
            line.append(f"**{paired.mean_words(mine)}**" if rate == best else paired.mean_words(mine))
        body.append(line)
    return ["excess at rate", *(f"{rate:g}" for rate in config.rates)], body


def excess_table(config: BackbonesConfig, grid: Grid) -> Table:
    """Return header and rows of every variant's size, and its excess under each way to spend."""
    body = []
    for variant in config.variants:
        one = grid.one(variant.name)
        if one is None:
            body.append([variant.name, *["failed"] * (4 + len(grid.spent))])
            continue
        sizes = [f"{one['step_flops'] / 1e9:.3f} G"]
        sizes += [f"{one[name] / 1e6:.2f} M" for name in ("effective_flops", "dense_flops", "counted_flops")]
        excess = [paired.mean_words(list(grid.excess(variant.name, spent).values())) for spent in grid.spent]
        body.append([variant.name, *sizes, *excess])
    return ["variant", "a step", "effective", "dense", "counted", *grid.spent], body


def worth_table(grid: Grid, found: list[Worth]) -> Table:
    """Return header and rows of what each axis is worth under each way to spend, and its best variant there."""
    body = []
    for axis in grid.axes():
        mine = {worth.spent: worth for worth in found if worth.axis == axis}
        kinds = {worth.per_doubling for worth in mine.values()}
        line = [f"{axis}, a doubling" if kinds == {True} else f"{axis}, at equal operations"]
        for spent in grid.spent:
            worth = mine.get(spent)
            line.append("-" if worth is None else f"{paired.mean_words(worth.drops)} ({worth.best})")
        body.append(line)
    if of_budget(grid):
        line = ["budget, a doubling", paired.mean_words(of_budget(grid)), *["-"] * (len(grid.spent) - 1)]
        body.append(line)
    return ["drop of the excess (best)", *grid.spent], body


def best_of(grid: Grid, spent: str) -> str:
    """Return the variant of least mean excess, with what can be said of it and the base."""
    means = {v.name: statistics.mean(e.values()) for v in grid.config.variants if (e := grid.excess(v.name, spent))}
    best = min(means, key=lambda name: means[name])
    if best == grid.base:
        return f"the base ({means[best]:.4f})"
    gains = paired.differences(grid.excess(best, spent), grid.excess(grid.base, spent))
    return paired.verdict(gains, best, grid.base)


def found_words(grid: Grid, found: list[Worth]) -> str:
    """Return the answer in sentences; each claim has its 95 % interval."""
    config = grid.config
    lines = []
    if len(config.rates) > 1:
        edges = {min(config.rates): " (the least tried)", max(config.rates): " (the most tried)"}
        of = ", ".join(f"{rate:g}{edges.get(rate, '')} at width {width}" for width, rate in sorted(grid.rates.items()))
        same = "the same for all widths" if len(set(grid.rates.values())) == 1 else "not the same for all widths"
        lines.append(f"Of the rates tried under muP on the smallest budget, the best are {of}: {same}.")
    if of_budget(grid):
        lines.append(worth_words(of_budget(grid), "A doubling of the base's budget") + ".")
    largest = words(config.budgets[-1])
    for spent, how in ((largest, f"On the largest budget, {largest}"), (EQUAL_STEPS, "With equal steps")):
        said = [
            worth_words(w.drops, f"{w.axis} {'a doubling of operations' if w.per_doubling else '(all of it)'}")
            for w in found
            if w.spent == spent
        ]
        if said:
            lines.append(f"{how}: {'; '.join(said)}.")
    bests = [f"on {words(budget)}, {best_of(grid, words(budget))}" for budget in config.budgets if grid.cells]
    if bests:
        lines.append(f"The best of the grid: {'; '.join(bests)}.")
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1)) + "\n"


def _figure(path: Path, grid: Grid) -> None:
    with figure(path, rows=1, columns=len(grid.spent), size=(4.2, 3.6)) as axes:
        for place, spent in zip(axes[0], grid.spent, strict=True):
            for axis, variants in grid.axes().items():
                points = []
                for name in variants:
                    values, one = list(grid.excess(name, spent).values()), grid.one(name)
                    if values and one is not None:
                        interval = paired.known(values)
                        reach = 0.0 if interval is None else interval.high - interval.estimate
                        points.append((one["step_flops"], statistics.mean(values), reach))
                if points:
                    x, y, reach_of = zip(*sorted(points), strict=True)
                    place.errorbar(x, y, yerr=reach_of, fmt="o-", label=axis)
            place.set_xscale("log")
            place.set_title(spent)
            place.set_xlabel("effective operations of a step")
            place.set_ylabel("excess over the least possible loss")
            place.legend(fontsize="small")


def write_report(config: BackbonesConfig, folder: RunFolder) -> list[Record]:
    """Write cells.csv, the figure and report.md, print the tables, and return what each axis is worth."""
    cells = latest(folder.records(), "cell", *IDENTITY)
    names = list(dict.fromkeys(name for c in cells for name in c))
    folder.write_csv("cells.csv", [{name: c.get(name, "") for name in names} for c in cells])
    grid = Grid(config, cells)
    found = worths(grid)
    _figure(folder.path / "excess.png", grid)
    spent = sum(c.get("cpu_seconds", 0.0) for c in cells)
    sides = ", ".join(map(str, config.buckets.resolutions))
    parts = [
        "# backbones: where FLOPs should go\n",
        f"Command: `{reports.command()}`  \nMachine: {machine_line()}  \nCPU seconds of all trainings: {spent:.0f}.\n",
        "## The answer\n",
        found_words(grid, found),
        f"Budgets are effective operations of forward and backward passes of one training at {sides} px; "
        f"{len(config.seeds)} seeds, paired; ± is half of a 95 % t-interval over seeds. `equal steps` are as many as "
        f"the base takes on {words(config.control_budget)}. Negative drops are losses.\n",
    ]
    tables = [("What a doubling of operations is worth", worth_table(grid, found))]
    if len(config.rates) > 1:
        tables.append((f"Learning rates, on {words(config.budgets[0])}", rate_table(config, cells, grid)))
    tables.append(("Excess; operations of a step, and of a forward pass of the largest", excess_table(config, grid)))
    for title, (header, body) in tables:
        cli.print_table(title, header, body)
        parts += [f"## {title}\n", reports.table(header, body)]
    parts.append("![excess](excess.png)\n")
    failed = [c for c in cells if c["status"] != "ok"]
    if failed:
        parts.append("Failed cells:\n")
        parts += [f"- {c['variant']}, seed {c['seed']}, {c['spent']}: {c['error']}" for c in failed]
    folder.write_text("report.md", "\n".join(parts) + "\n")
    return [worth.record() for worth in found]
