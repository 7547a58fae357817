"""A fleet that nobody here has, modelled: up to 10,000 trainers on 1,000 nodes, and what they ask of one tier.

    python -m benches.fleet                                   all deploys, to 1,000 nodes (minutes)
    python -m benches.fleet --out benches/results/fleet       the same, for `tools/fleet_page.py`
    python -m benches.fleet --check --out benches/results/fleet
    python -m benches.fleet --check --counted benches/results/fleet/counted.json

The model is fed by `measured.json`: measured, published and assumed numbers, each with its source. `--check` runs 8
trainers on 4 daemons, or reads what an earlier such run counted, and fails (exit code 1) where the daemons' counts are
not what the model gives. Talk goes to stderr; the last line on stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benches.fleet.check import check
from benches.fleet.figures import read_figures
from benches.fleet.real import counted_run
from benches.fleet.scenarios import SIZES, play
from benches.harness.daemon import ServeError
from benches.harness.markdown import command
from benches.harness.measure import BenchError
from benches.harness.output import complain, folder, last_line, say
from benches.harness.processes import run_bench

_NODES, _TRAINERS = 4, 8


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    options = _options(argv)
    figures = read_figures()
    if options.check:
        try:
            counted = json.loads(options.counted.read_text()) if options.counted else _counted()
        except (BenchError, ServeError) as error:
            complain(error)
            return 1
        rows = check(counted, figures)
        for row in rows:
            fits = "fits" if row["fits"] else "DOES NOT FIT"
            say(f"{row['counter']}: counted {row['counted']}, model {row['least']} to {row['most']}: {fits}")
        document: dict[str, Any] = {"bench": "fleet", "command": command(), **counted, "check": rows}
        _write(options.out, "counted.json", document)
        return 0 if all(row["fits"] for row in rows) else 1
    sizes = tuple(int(text) for text in options.nodes.split(","))
    document = {
        "bench": "fleet",
        "command": command(),
        "figures": {name: asdict(figure) for name, figure in figures.items()},
        **play(figures, sizes, say),
    }
    _write(options.out, "fleet.json", document)
    return 0


def _counted() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="fleet-") as text:
        return counted_run(Path(text), nodes=_NODES, trainers=_TRAINERS)


def _write(out: Path | None, name: str, document: dict[str, Any]) -> None:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(json.dumps(document, indent=1) + "\n")
    last_line(document)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benches.fleet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", default=",".join(map(str, SIZES)), help="fleet sizes, by commas")
    parser.add_argument("--check", action="store_true", help="hold the model against a real run")
    parser.add_argument("--counted", type=Path, help="with --check: a run that was counted before")
    parser.add_argument("--out", type=folder, help="also write the documents into this folder")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_bench(main)
