"""What `benches.multires.objectives` writes at the end: a table, and in words what the data allow to be said."""

from __future__ import annotations

import time
from typing import Any

from benches.harness import lab_cli as cli
from benches.harness import markdown as reports
from benches.harness import paired
from benches.harness.machine import machine_line
from benches.multires.objectives_presets import ObjectivesConfig

Record = dict[str, Any]
MEASURES = {"excess_x0": "excess in x0", "excess_v": "excess in v"}
"""Of these, less is better."""


def differences(cells: list[Record], name: str, base: str, measure: str) -> list[float]:
    """Return how much larger a measure of a row is than the base's, seed by seed, where both have ended well."""
    one, other = (
        {c["seed"]: c[measure] for c in cells if c["row"] == row and c["status"] == "ok"} for row in (name, base)
    )
    return paired.differences(one, other)


QUESTIONS = (("v / v", "x0 / x0"), ("x0 / v", "x0 / x0"), ("v / v", "x0 / v"))
"""Is v-prediction worse? Because of the loss in v? Or because the network says v?"""


def report(config: ObjectivesConfig, cells: list[Record], seconds: float) -> str:
    """Return report.md, and print its table."""
    first = config.rows[0].name
    header = ["says / loss in", "excess in x0", "excess in v", "median R2", *(f"{m} - {first}" for m in MEASURES)]
    body = []
    for row in config.rows:
        good = [c for c in cells if c["row"] == row.name and c["status"] == "ok"]
        line = [row.name] + [
            reports.number(sum(c[m] for c in good) / len(good)) if good else "diverged" for m in (*MEASURES, "r2")
        ]
        for measure in MEASURES:
            known = None if row.name == first else paired.known(differences(cells, row.name, first, measure))
            line.append("-" if known is None else f"{known.low:+.4f} to {known.high:+.4f}")
        body.append(line)
    cli.print_table(f"{config.train.steps} steps, seeds {', '.join(map(str, config.seeds))}", header, body)
    names = {row.name for row in config.rows}
    said = [
        f"- In {measure.removeprefix('excess_')}: {paired.verdict(differences(cells, one, base, measure), one, base)}."
        for one, base in QUESTIONS
        if {one, base} <= names
        for measure in MEASURES
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
