"""How many CPU seconds a training needs until no metric tells its samples from true boards: docs/leaderboard.md.

python -m benches.multires.leaderboard --write docs/leaderboard.md       the committed runs
python -m benches.multires.leaderboard runs/multires/003                 others

Every argument is a folder with the scores.csv, losses.csv, config.json and report.md of a finished run; each of its
modes is a row. A row that never comes below z = 3 says the best that it reached, and stays.
"""

from __future__ import annotations

import argparse
import csv
import json
import textwrap
from pathlib import Path
from typing import NamedTuple

from benches.harness import markdown as reports
from diffusion.errors import RunFolderError
from diffusion.metrics.panel import overall
from diffusion.metrics.registry import METRICS

REACHED = 3.0
"""The worst |z| of a panel below which samples are not told from true boards."""


MODELS = {"BackboneConfig": "HybridDiT", "EqualTokensConfig": "EqualTokens"}


class Reached(NamedTuple):
    """What one training reached at one resolution."""

    z: float  # the least worst |z| of all times that it was looked at
    metric: str  # the one that was worst then
    seconds: float  # of CPU, until then
    overall: float  # the panel's geometric mean then

    def words(self) -> str:
        """Return the seconds where the goal was reached, and the best that was reached elsewhere."""
        if self.z < REACHED:
            return f"**{self.seconds:.0f} s**"
        return f"z {self.z:.0f} ({self.metric}), overall {self.overall:.1f}, after {self.seconds:.0f} s"


class Row(NamedTuple):
    """One mode of one run."""

    name: str
    reached: dict[int, list[Reached]]  # by resolution: one a seed
    command: str
    notes: str


def _rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _spent(losses: list[dict[str, str]], mode: str, seed: str, step: int) -> float:
    """Return the CPU seconds of a training up to a step; runs from before they were kept have seconds on the wall."""
    mine = [r for r in losses if r["mode"] == mode and r.get("seed", "0") == seed and int(r["step"]) < step]
    return sum(float(r.get("cpu_seconds") or r["seconds"]) for r in mine)


def _reached(
    scores: list[dict[str, str]], losses: list[dict[str, str]], mode: str, seed: str, resolution: int
) -> Reached | None:
    mine = [r for r in scores if (r["mode"], r.get("seed", "0"), int(r["resolution"])) == (mode, seed, resolution)]
    looks = []
    for step in sorted({int(r["step"]) for r in mine}):
        z = {r["metric"]: float(r["z"]) for r in mine if int(r["step"]) == step}
        worst = max(z, key=lambda name: abs(z[name]))
        looks.append(Reached(abs(z[worst]), worst, _spent(losses, mode, seed, step), overall(z)))
    first = next((look for look in looks if look.z < REACHED), None)
    return first or min(looks, key=lambda look: look.z, default=None)


def rows_of(folder: Path) -> list[Row]:
    """Return a row for each mode of a finished run; raise `RunFolderError` for a folder that holds none."""
    try:
        scores, losses = _rows_of(folder / "scores.csv"), _rows_of(folder / "losses.csv")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        report = (folder / "report.md").read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{folder} holds no finished run of benches.multires: {error}") from error
    command = next((line.split("`")[1] for line in report.splitlines() if line.startswith("Command:")), "unknown")
    missing = {m.name for m in METRICS} - {r["metric"] for r in scores}
    notes = f"older than the code, as is its command: without {', '.join(sorted(missing))}" if missing else ""
    rows = []
    for mode in dict.fromkeys(r["mode"] for r in scores):
        seeds = list(dict.fromkeys(r.get("seed", "0") for r in scores if r["mode"] == mode))
        reached = {}
        for resolution in config["buckets"]["resolutions"]:
            found = [_reached(scores, losses, mode, seed, resolution) for seed in seeds]
            reached[resolution] = [one for one in found if one is not None]
        model = MODELS[config["backbone"]["kind"]]
        count = "1 seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
        said = config["target"]
        rows.append(
            Row(f"{model} says {said}, {mode}, {config['train']['steps']} steps, {count}", reached, command, notes)
        )
    return rows


def page(rows: list[Row]) -> str:
    """Return the page; rows are ordered by the best z at the smallest resolution."""
    sides = sorted({side for row in rows for side in row.reached})

    def best(row: Row) -> float:
        return min((one.z for side in sides for one in row.reached.get(side, [])[:1]), default=float("inf"))

    def cell(row: Row, side: int) -> str:
        # The middle seed: a row of several is neither its luckiest nor its unluckiest.
        seeds = sorted(row.reached.get(side, []), key=lambda one: (one.z >= REACHED, one.seconds, one.z))
        return seeds[len(seeds) // 2].words() if seeds else "not measured"

    body = [
        [row.name, *(cell(row, side) for side in sides), f"`{row.command}`", row.notes or "-"]
        for row in sorted(rows, key=best)
    ]
    header = ["model, mode, length", *(f"{side} px" for side in sides), "command", "notes"]
    text = (
        "Seconds of CPU that a training needs until the worst |z| of the panel is below "
        f"{REACHED:.0f}: until no metric tells its samples from true boards. A row that does not come there says the "
        "best that it reached, by which metric it was told, and the panel's geometric mean; of several seeds the "
        "middle one counts."
    )
    made = "Made by `python -m benches.multires.leaderboard`; [the lab](lab.md) says what is measured."
    table = reports.table(header, body)
    return f"# Leaderboard\n\n{textwrap.fill(text, 120, break_on_hyphens=False)}\n\n{made}\n\n{table}"


def committed(results: Path) -> list[Path]:
    """Return the folders of the runs that are kept with the code."""
    return [results / "multires", *sorted((results / "leaderboard").glob("*"))]


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(prog="python -m benches.multires.leaderboard", description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    try:
        folders = options.folders or committed(Path("benches/results"))
        text = page([row for folder in folders for row in rows_of(folder)])
    except RunFolderError as error:
        parser.error(str(error))
    if options.write is None:
        print(text, end="")
    else:
        options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
