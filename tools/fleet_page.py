"""Writes docs/fleet.md from what `benches.fleet` wrote; with `--check` only says whether it is up to date.

    python -m benches.fleet --out benches/results/fleet && python tools/fleet_page.py

No number reaches the page in another way.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
_RESULTS = _ROOT / "benches" / "results" / "fleet"
_PAGE = _ROOT / "docs" / "fleet.md"

_HEAD = """# A larger fleet than we have

What one tier has to bear when many nodes deploy together, and what a deploy of a new torch costs. **Nothing of this was run on
a fleet**: it is a model (`benches/fleet`), fed by the figures at the end, and arithmetic. What it says of the daemons' requests is held
against the code by `tests/fleet`, and against a real run of 8 trainers on 4 daemons by `--check`, below.

Written by `python tools/fleet_page.py` from the output of:

```bash
{command} --out benches/results/fleet
```

A node has {trainers:.0f} trainers of {graphs:.0f} graphs each, and a daemon with {workers:.0f} workers; a compile takes {compile:.0f} s, all trainers start within {spread:.0f} s
and take the graphs in the same order; *shuffled* is each in an order of its own.
"""


def page(results: Mapping[str, Any], counted: Mapping[str, Any] | None) -> str:
    """Return the page."""
    value = {name: figure["value"] for name, figure in results["figures"].items()}
    head = _HEAD.format(
        command=results["command"],
        trainers=value["trainers_per_node"],
        graphs=value["graphs"],
        workers=value["workers"],
        compile=value["compile_s"],
        spread=value["spread_s"],
    )
    parts = [
        head,
        _enough(results["enough"], value),
        _new_torch(results["rows"], value),
        _deploys(results["rows"]),
        _check(counted),
        _figures(results["figures"]),
    ]
    return "\n".join(parts)


def _enough(rows: Sequence[Mapping[str, Any]], value: Mapping[str, float]) -> str:
    lines = [
        "## Where one tier stops being enough\n",
        "The wall is the number of nodes whose busiest second asks for all that the tier can do: by arithmetic, from the largest fleet played whose busiest",
        "second left it half idle. Beyond it answers wait for each other. A lookup waits",
        f"{value['lookup_budget_s'] * 1000:.0f} ms for the tier before it is answered as a miss, so a tier is *late* where one of a hundred reads takes longer.\n",
        "| tier | deploy | requests/s and node in the busiest second | KB/s and node | wall | late from, as played | objects that would fill 10 GbE at 1,000 nodes |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        late = f"{row['late_from_nodes']} nodes" if row["late_from_nodes"] else f"not up to {row['largest_played']}"
        cells = (
            row["engine"],
            row["deploy"],
            f"{row['peak_per_s_and_node']:.1f}",
            f"{row['peak_bytes_per_s_and_node'] / 1000:.0f}",
            f"{row['wall_nodes']} nodes",
            late,
            _filling(row, value),
        )
        lines.append(_line(cells))
    lines += [
        "",
        "**Size** comes first where objects are large: the last column says from which on the busiest second asks for more than one card carries (a bucket is",
        f"many machines). With 30 MiB, which was published for one model on a GPU, that is at {_nodes_of_large(rows, value)} replayed nodes that start together: they wait.\n",
        "What a cold fleet asks for is not artifacts but *whether the artifact is there yet*: each node that waits for another's compile looks every",
        "0.2 to 2 s, for each graph that it waits for. A fleet whose graphs are in the tier asks for a fraction of that. Nobody is harmed beyond a wall: a tier",
        "that is late costs compiles, and is left alone for a while.",
    ]
    return "\n".join(lines) + "\n"


def _objects_per_s(row: Mapping[str, Any], value: Mapping[str, float]) -> float:
    """Return how many objects a node reads in the busiest second."""
    return float(row["peak_bytes_per_s_and_node"]) / value["object_bytes"]


def _filling(row: Mapping[str, Any], value: Mapping[str, float]) -> str:
    if row["engine"] == "bucket":
        return "-"
    return f"{value['network_bytes_per_s'] / (1000 * _objects_per_s(row, value)) / 1e6:.1f} MB"


def _nodes_of_large(rows: Sequence[Mapping[str, Any]], value: Mapping[str, float]) -> str:
    most = max(_objects_per_s(row, value) for row in rows if row["deploy"] == "replayed" and row["engine"] != "bucket")
    return f"{value['network_bytes_per_s'] / (most * 30 * 2**20):.0f}"


def _new_torch(rows: Sequence[Mapping[str, Any]], value: Mapping[str, float]) -> str:
    by = {(row["deploy"], row["engine"], row["nodes"]): row for row in rows}
    shuffled = max(
        (row for row in rows if row["deploy"] == "cold, shuffled" and row["engine"] == "redis"),
        key=lambda row: int(row["nodes"]),
    )
    alone = next(row for row in rows if row["deploy"] == "without a tier")
    lines = [
        "## What a deploy of a new torch costs\n",
        "A new torch is a new environment: everything misses. `replay` the night before, on one node, puts the same graphs into the tier.",
        "Compiles are of the fleet; seconds are from the first trainer's start to the last trainer's last graph, with a Redis.\n",
        "| nodes | trainers | no tier: compiles | hours of compiling | cold, with a tier: compiles | hours of compiling | seconds | replayed: compiles | seconds | trainer hours saved by the replay |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for nodes in sorted({row["nodes"] for row in rows}):
        cold, replayed = by[("cold", "redis", nodes)], by[("replayed", "redis", nodes)]
        trainers = nodes * value["trainers_per_node"]
        times = nodes / alone["nodes"]
        cells = (
            str(nodes),
            f"{trainers:.0f}",
            f"{alone['compiles'] * times:.0f}",
            f"{alone['compile_cpu_s'] * times / 3600:.1f}",
            str(cold["compiles"]),
            f"{cold['compile_cpu_s'] / 3600:.2f}",
            f"{cold['seconds']:.0f}",
            str(replayed["compiles"]),
            f"{replayed['seconds']:.0f}",
            f"{trainers * (cold['trainer_s'] - replayed['trainer_s']) / 3600:.1f}",
        )
        lines.append(_line(cells))
    lines += [
        "",
        f"Without a tier every node is as the first: {alone['seconds']:.0f} s. A tier saves compiles, and hardly any time of a fleet that starts in",
        "lockstep: everybody waits for the same compile, wherever it runs. Trainers that take their graphs in orders of their own spread the compiles",
        f"over the nodes (*cold, shuffled*: {shuffled['seconds']:.0f} s at {shuffled['nodes']} nodes); the replay has nothing left to wait for.",
    ]
    return "\n".join(lines) + "\n"


def _deploys(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "## Every deploy that was played\n",
        "| deploy | tier | nodes | seconds | compiles | reads | writes | MB | busiest second: requests | MB | 99 % of reads within, ms |",
        "|---|---|" + "---:|" * 9,
    ]
    for row in rows:
        cells = (
            row["deploy"],
            row["engine"],
            str(row["nodes"]),
            f"{row['seconds']:.0f}",
            str(row["compiles"]),
            str(row["reads"]),
            str(row["writes"]),
            f"{row['bytes'] / 1e6:.1f}",
            str(row["peak_per_s"]),
            f"{row['peak_bytes_per_s'] / 1e6:.1f}",
            f"{row['delay_p99_s'] * 1000:.1f}" if row["reads"] else "-",
        )
        lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _check(counted: Mapping[str, Any] | None) -> str:
    command = "python -m benches.fleet --check --out benches/results/fleet"
    lines = ["## Held against a real run\n", f"```bash\n{command}\n```\n"]
    if counted is None:
        lines.append(
            "Not run on this checkout yet: the command starts 4 daemons and 8 trainers, counts, and plays the same with the model."
        )
        return "\n".join(lines) + "\n"
    lines += [
        f"{counted['trainers']} trainers of {counted['graphs']} graphs on {counted['nodes']} daemons and one directory; the model's range is that of 20 plays.\n",
        "| counter | counted | model | |",
        "|---|---:|---:|---|",
    ]
    for row in counted["check"]:
        fits = "fits" if row["fits"] else "**does not fit**"
        lines.append(_line((row["counter"], str(row["counted"]), f"{row['least']} to {row['most']}", fits)))
    return "\n".join(lines) + "\n"


def _figures(figures: Mapping[str, Mapping[str, Any]]) -> str:
    lines = ["## What it is fed with\n", "| figure | value | | source |", "|---|---:|---|---|"]
    for name, figure in figures.items():
        lines.append(_line((f"`{name}`", f"{figure['value']:.10g}", figure["unit"], figure["source"])))
    lines += [
        "",
        "Left out: failures of any kind, the breaker that leaves a late tier alone, nodes that differ, GPU artifacts (their sizes are unknown here; above 8 MiB one belongs in no Redis), and a",
        "directory's server beyond its rate, which is assumed. Change `benches/fleet/measured.json` to what you measured, and play it again.",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main() -> int:
    """Write or check; return the exit code."""
    counted_path = _RESULTS / "counted.json"
    counted = json.loads(counted_path.read_text()) if counted_path.exists() else None
    wanted = page(json.loads((_RESULTS / "fleet.json").read_text()), counted)
    if "--check" not in sys.argv:
        _PAGE.write_text(wanted, encoding="utf-8")
    elif not _PAGE.exists() or _PAGE.read_text(encoding="utf-8") != wanted:
        sys.stderr.write("docs/fleet.md is not up to date: python tools/fleet_page.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
