"""What `benches.multires.objectives` writes at the end: a table, and in words what the data allow to be said."""

from __future__ import annotations

import time
from typing import Any

from benches.harness import lab_cli as cli
from benches.harness import markdown as reports
from benches.harness.machine import machine_line
from benches.multires.objectives_presets import ObjectivesConfig
from diffusion.pairs import Interval, t_interval

Record = dict[str, Any]
MEASURES = {"excess_x0": "excess in x0", "excess_v": "excess in v"}
"""Of these, less is better."""


def differences(cells: list[Record], name: str, base: str, measure: str) -> list[float]:
    """Return how much larger a measure of a row is than the base's, seed by seed, where both have ended well."""
    known = {(c["row"], c["seed"]): c[measure] for c in cells if c["status"] == "ok"}
    seeds = [seed for row, seed in known if row == name and (base, seed) in known]
    return [known[name, seed] - known[base, seed] for seed in seeds]


def verdict(values: list[float], name: str, base: str) -> str:
    """Return in words what paired differences of an excess allow to be said."""
    if len(values) < 2:
        return f"{name} cannot be compared to {base}: an interval needs two seeds that ended well"
    known: Interval = t_interval(values)
    numbers = f"{known.estimate:+.4f}, 95 % interval {known.low:+.4f} to {known.high:+.4f}, {len(values)} seeds"
    if known.holds_zero:
        return f"{name} and {base} cannot be told apart ({numbers})"
    return f"{name} is {'worse' if known.low > 0 else 'better'} than {base} ({numbers})"


QUESTIONS = (("v / v", "x0 / x0"), ("x0 / v", "x0 / x0"), ("v / v", "x0 / v"))
"""Is v-prediction worse? Because of the loss in v? Or because the network says v?"""


def report(config: ObjectivesConfig, cells: list[Record], seconds: float) -> str:
    """Return report.md, and print its table."""
    base = config.rows[0].name
    header = ["says / loss in", "excess in x0", "excess in v", "median R2", *(f"{m} - {base}" for m in MEASURES)]
    body = []
    for row in config.rows:
        good = [c for c in cells if c["row"] == row.name and c["status"] == "ok"]
        line = [row.name] + [
            reports.number(sum(c[m] for c in good) / len(good)) if good else "diverged" for m in (*MEASURES, "r2")
        ]
        for measure in MEASURES:
            values = differences(cells, row.name, base, measure)
            if row.name == base or len(values) < 2:
                line.append("-")
                continue
            known = t_interval(values)
            line.append(f"{known.low:+.4f} to {known.high:+.4f}")
        body.append(line)
    cli.print_table(f"{config.train.steps} steps, seeds {', '.join(map(str, config.seeds))}", header, body)
    names = {row.name for row in config.rows}
    said = [
        f"- In {title.removeprefix('excess in ')}: {verdict(differences(cells, one, other, measure), one, other)}."
        for one, other in QUESTIONS
        if {one, other} <= names
        for measure, title in MEASURES.items()
    ]
    return "\n".join(
        [
            "# objectives: what a network says, where its error is measured, and what counts\n",
            f"Command: `{reports.command()}`  \nMachine: {machine_line()}  \n"
            f"Wall seconds: {seconds:.0f}, CPU seconds: {time.process_time():.0f}.\n",
            f"{config.train.steps} steps, {len(config.seeds)} seeds, paired. Excess is over the least possible error, "
            "mean over noise levels; the last two columns are 95 % t-intervals of the paired difference. True boards "
            "have a median R2 of about 0.7 at 16 px.\n",
            reports.table(header, body),
            "## What the data allow to be said\n",
            *(said or ["- Nothing: the rows of the question were not run."]),
        ]
    )
