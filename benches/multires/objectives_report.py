"""What `benches.multires.objectives` writes at the end: a table, and in words what the data allow to be said."""

from __future__ import annotations

from typing import Any

from benches.harness import lab_cli as cli
from benches.harness import markdown as reports
from benches.harness import paired
from benches.harness.machine import machine_line
from benches.harness.run_folder import RunFolder, latest
from benches.multires.objectives_presets import ObjectivesConfig

Record = dict[str, Any]
MEASURES = {"excess_x0": "excess in x0", "excess_v": "excess in v"}
"""Of these, less is better."""
NO_BOARDS = 0.2
"""A median R2 that regions without straight edges have, too."""


def differences(cells: list[Record], name: str, base: str, measure: str) -> list[float]:
    """Return how much larger a measure of a row is than the base's, seed by seed, where both have ended well."""
    one, other = (
        {c["seed"]: c[measure] for c in cells if c["row"] == row and c["status"] == "ok"} for row in (name, base)
    )
    return paired.differences(one, other)


QUESTIONS = (("v / v", "x0 / x0"), ("x0 / v", "x0 / x0"), ("v / v", "x0 / v"))
"""Is v-prediction worse? Because of the loss in v? Or because the network says v?"""


ASKED = {"excess_x0": ("x0", 1), "excess_v": ("v", 1), "r2": ("1 - R2", -1)}
"""What is compared, under which name, and with which sign less of it is better."""


def answers(config: ObjectivesConfig, cells: list[Record]) -> list[str]:
    """Return the answers in sentences: to each question, what is best, and what learned no boards."""
    names = {row.name for row in config.rows}
    said = [
        f"{one} against {base}: "
        + "; ".join(
            f"in {title} {paired.verdict([sign * d for d in differences(cells, one, base, measure)], one, base)}"
            for measure, (title, sign) in ASKED.items()
        )
        for one, base in QUESTIONS
        if {one, base} <= names
    ]
    said += filter(None, (best_words(config, cells), failures(config, cells)))
    return [f"{number}. {line}." for number, line in enumerate(said, 1)]


def best_words(config: ObjectivesConfig, cells: list[Record]) -> str:
    """Return which rows are best in what is asked, and what can be said of them and the first row."""
    first = config.rows[0].name
    said = []
    for measure, (title, sign) in ASKED.items():
        means = {}
        for row in config.rows:
            good = [c[measure] for c in cells if c["row"] == row.name and c["status"] == "ok"]
            if good and len(good) == len(config.seeds):
                means[row.name] = sign * sum(good) / len(good)
        if means:
            best = min(means, key=lambda name: means[name])
            values = [sign * value for value in differences(cells, best, first, measure)]
            said.append(f"in {title} {best}" if best == first else f"in {title} {paired.verdict(values, best, first)}")
    return f"The best rows: {'; '.join(said)}" if said else ""


def failures(config: ObjectivesConfig, cells: list[Record]) -> str:
    """Return the rows that learn no boards, and those that diverged."""
    poor = []
    for row in config.rows:
        r2 = [c["r2"] for c in cells if c["row"] == row.name and c["status"] == "ok"]
        interval = paired.known(r2)
        if interval is not None and interval.high < NO_BOARDS:
            poor.append(f"{row.name} ({paired.mean_words(r2)})")
    bad = sorted({c["row"] for c in cells if c["status"] != "ok"})
    said = [f"no boards, R2 below {NO_BOARDS}, were learned by {', '.join(poor)}"] if poor else []
    said += [f"diverged: {', '.join(bad)}"] if bad else []
    return f"Negative: {'; '.join(said)}" if said else ""


def summarise(config: ObjectivesConfig, cells: list[Record]) -> list[Record]:
    """Return the means of every row over its seeds, and the intervals of its paired differences to the first row."""
    first = config.rows[0].name
    summary = []
    for row in config.rows:
        good = [c for c in cells if c["row"] == row.name and c["status"] == "ok"]
        record: Record = {"row": row.name, "diverged": sum(c["row"] == row.name for c in cells) - len(good)}
        for measure in (*MEASURES, "r2"):
            record[measure] = sum(c[measure] for c in good) / len(good) if good else None
            known = None if row.name == first else paired.known(differences(cells, row.name, first, measure))
            record[f"{measure}_low"], record[f"{measure}_high"] = (known.low, known.high) if known else (None, None)
        summary.append(record)
    return summary


def write_report(config: ObjectivesConfig, folder: RunFolder) -> list[Record]:
    """Write cells.csv and report.md, print the table, and return the summary."""
    cells = latest(folder.records(), "cell", "row", "seed")
    columns = list(dict.fromkeys(name for cell in cells for name in cell))
    folder.write_csv("cells.csv", [{name: cell.get(name, "") for name in columns} for cell in cells])
    summary = summarise(config, cells)
    first = config.rows[0].name
    header = ["says / loss in", "excess in x0", "excess in v", "median R2", *(f"{m} - {first}" for m in MEASURES)]
    body = []
    for r in summary:
        line = [r["row"], *("diverged" if r[m] is None else reports.number(r[m]) for m in (*MEASURES, "r2"))]
        known = [(r[f"{m}_low"], r[f"{m}_high"]) for m in MEASURES]
        body.append(line + ["-" if low is None else f"{low:+.4f} to {high:+.4f}" for low, high in known])
    cli.print_table(f"{config.train.steps} steps, seeds {', '.join(map(str, config.seeds))}", header, body)
    parts = [
        "# objectives: what a network says, where its error is measured, and what counts\n",
        f"Command: `{reports.command()}`  \nMachine: {machine_line()}  \n"
        f"Seconds of all trainings, on the wall: {sum(c.get('seconds', 0.0) for c in cells):.0f}.\n",
        "## The answer\n",
        *answers(config, cells),
        f"\n{config.train.steps} steps, {len(config.seeds)} seeds, paired. Excess is over the least possible error, "
        "mean over noise levels; the last two columns are 95 % t-intervals of the paired difference. True boards "
        "have a median R2 of about 0.63 at 16 px.\n",
        reports.table(header, body),
    ]
    folder.write_text("report.md", "\n".join(parts) + "\n")
    return summary
