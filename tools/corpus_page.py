"""Writes docs/corpus.md from what the corpus wrote; with `--check` only says whether it is up to date.

    make corpus [TORCH=VERSION]

No number reaches the page in another way.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benches.corpus.summary import graphs, summary, warm_graphs

_ROOT = Path(__file__).resolve().parent.parent
RESULTS = _ROOT / "benches" / "results" / "corpus"
PAGE = _ROOT / "docs" / "corpus.md"

_HEAD = """# What others wrote

Models of packages on PyPI, small, with a real daemon: how many of their graphs it takes, what it refuses and at which node, and whether
numbers are what torch's own compile gives. Written by `python tools/corpus_page.py` from what these write into `benches/results/corpus`:

```bash
make corpus                                        # transformers, diffusers and x-transformers; hours, goes on where it was stopped
make corpus TORCH=2.15.0                           # on the newest torch
make corpus TORCH=2.14.1 CORPUS=pictures           # timm, k-diffusion and denoising-diffusion-pytorch, which need a torchvision
```

A graph is what dynamo hands to the compiler: with its backward pass, where there is one. Each entry trains at two sizes and then runs
without gradients at both, unless it says otherwise; at the second size dynamo makes one graph for all sizes.
"""

_TRACED = """## Taken: every graph, captured, carried, rebuilt and traced

Each graph is captured as a client does, carried as bytes, rebuilt and traced as a worker does, up to where inductor would lower it. *Taken*
is a graph that arrives with its key. This says nothing of the numbers.
"""

_COMPILED = """## Compiled: cold, warm, and compared bit for bit

Each entry runs in three processes with empty directories: torch alone, *cold* with a daemon that has nothing of it, and *warm* with that
daemon again. Losses, gradients, parameters and outputs are compared bit for bit.
"""


def page(traced: Sequence[Mapping[str, Any]], compiled: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of documents of several versions of torch; without any it says that nothing was compiled."""
    lines = [_HEAD, _TRACED, *(line for document in traced for line in _traced(document)), _COMPILED]
    return "\n".join(
        [*lines, *(line for document in compiled for line in _compiled(document))]
        + ["This was not run yet.", ""] * (not compiled)
    )


def _traced(document: Mapping[str, Any]) -> list[str]:
    rows = document["rows"]
    refused = [(row["name"], graph["why"]) for row in rows for graph in row["graphs"] if graph["outcome"] == "refused"]
    nowhere = [
        (row["name"], graph["why"]) for row in rows for graph in row["graphs"] if graph["outcome"] == "uncacheable"
    ]
    lines = [
        *_machine(document),
        f"- {document['entries']} entries of {document['models']} models; {document['taken']} graphs were taken, {document['refused']} refused.",
        f"- {document['uncacheable']} more have no key of torch's, and {document['traced_again']} torch gave up to trace the program once more.",
        *([f"- These could not be run: {', '.join(document['failed'])}."] if document["failed"] else []),
        "",
        "| entry | package | how | taken | refused | no key |",
        "|---|---|---|---:|---:|---:|",
    ]
    for row in rows:
        outcomes = Counter(graph["outcome"] for graph in row["graphs"])
        cells = (
            row["name"],
            row["package"],
            row["traits"],
            *(str(outcomes[what]) for what in ("taken", "refused", "uncacheable")),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Refused, with the node:\n" if refused else "Nothing was refused.", *_counted(refused), ""]
    return [*lines, *(["Without a key, in torch's words:\n", *_counted(nowhere), ""] if nowhere else [])]


def _compiled(document: Mapping[str, Any]) -> list[str]:
    found = summary(document["rows"])
    cacheable = found["by_daemon"] + found["here"] - found["uncacheable"]
    said = [
        *_machine(document),
        f"- {found['entries']} entries of {found['models']} models, {found['graphs']} graphs.",
        f"- {found['by_daemon']} of the {cacheable} graphs that were compiled and that torch can cache were compiled by the daemon: "
        f"{found['share']:.1%}. {found['local']} more were found in torch's own cache, put there by another graph of the process.",
        f"- Numbers that differ from torch's own: {', '.join(found['differing']) or 'none'}, of {found['compared']} digests "
        "compared twice, cold and warm.",
        f"- Warm: {found['warm_hits']} of {found['warm_graphs']} graphs were hits, with {found['warm_builds']} C++ builds. "
        f"What torch can cache and was compiled again: {', '.join(found['not_warm']) or 'nothing'}.",
    ]
    if found["failed"]:
        said.append(f"- These entries failed: {', '.join(found['failed'])}.")
    reasons = [
        (row["name"], f"{one['reason']}: {one['why']}") for row in document["rows"] for one in row.get("reasons", ())
    ]
    nowhere = [(row["name"], why) for row in document["rows"] if row.get("uncacheable") for why in row["uncached"]]
    said += [
        "",
        _table(document["rows"]),
        "Compiled in the trainer, with the reason:\n" if reasons else "Nothing was refused.",
        *_counted(reasons),
    ]
    return [*said, *(["\nNot cached by torch, in its words:\n", *_counted(nowhere)] if nowhere else []), ""]


def _machine(document: Mapping[str, Any]) -> list[str]:
    machine = document["machine"]
    return [
        f"### torch {machine['torch']}\n",
        f"Python {machine['python']}, {machine['cpu']}, {machine['cores']} cores.\n",
    ]


def _counted(said: Sequence[tuple[str, str]]) -> list[str]:
    return [f"- {name}, {count}: {_cell(why)}" for (name, why), count in Counter(said).items()]


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| entry | package | how | graphs | by the daemon | refused | equal | warm hits | builds |",
        "|---|---|---|---:|---:|---|---|---:|---:|",
    ]
    for row in rows:
        if "failed" in row:
            lines.append(f"| {row['name']} | {row['package']} | {row['traits']} | | | {_cell(row['failed'])} | | | |")
            continue
        refused = ", ".join(f"{count} {reason}" for reason, count in row["refused"].items())
        equal = "no" if row["differing"]["cold"] or row["differing"]["warm"] else "yes"
        cells = (
            row["name"], row["package"], row["traits"], str(graphs(row)), str(row["by_daemon"] + row["local"]),
            refused, equal, f"{row['warm_hits']} of {warm_graphs(row)}", str(row["warm_builds"]),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def is_up_to_date() -> bool:
    """Whether the page says what the results do."""
    return PAGE.exists() and PAGE.read_text() == _whole()


def main() -> int:
    """Write the page; with `--check` only say whether it is up to date."""
    if "--check" in sys.argv[1:]:
        return 0 if is_up_to_date() else 1
    PAGE.write_text(_whole())
    return 0


def _whole() -> str:
    return page(
        *(
            [json.loads(file.read_text()) for file in sorted(RESULTS.glob(f"{what}-*.json"))]
            for what in ("traced", "compiled")
        )
    )


if __name__ == "__main__":
    sys.exit(main())
