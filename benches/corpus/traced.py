"""Which graphs of the corpus a worker takes, without compiling any: minutes where the corpus itself takes hours.

    python -m benches.corpus.traced [--only NAME ...] [--json FILE]

Each graph is captured as a client does, carried as bytes, rebuilt and traced as a worker does, up to where inductor
would lower it: by then everything that refuses a graph has spoken. Both ends are this one process, and the graphs
themselves run uncompiled. A graph is *taken* where it arrives with the key that it had. Exit code 1 where one is
refused that torch has a key for. Rows that FILE has already are kept.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.exc import TensorifyScalarRestartAnalysis
from torch._inductor import config as inductor_config

from benches.corpus.ends import KeyDiffersError, UncacheableError, captured, taken
from benches.corpus.process import run
from benches.corpus.registry import Entry, installed, whole_corpus
from benches.corpus.summary import traced_totals
from benches.harness.machine import machine
from benches.harness.output import last_line, say, write_document
from benches.harness.processes import run_bench
from compile_client.graphs.capture import CannotCarryError
from compile_client.graphs.source_lines import origin_of_named
from compile_torch.messages import replace_messages
from compile_wire.errors import MalformedError


class Looking:
    """A backend that looks at each graph, and has it run as it is."""

    def __init__(self, mode: str | None) -> None:
        """`mode` is what `torch.compile` would have been given."""
        self.rows: list[dict[str, str]] = []
        self._options = torch._inductor.list_mode_options(mode) if mode else {}

    def __call__(self, gm: torch.fx.GraphModule, inputs: Any, **_: Any) -> Any:
        """Note what would become of a graph."""
        replace_messages(gm)
        row = {"outcome": "taken", "why": ""}
        try:
            with inductor_config.patch(self._options):
                spec, key = captured(gm, inputs)
            taken(spec, key)
        except TensorifyScalarRestartAnalysis:
            self.rows.append({"outcome": "traced_again", "why": ""})
            raise
        except UncacheableError as error:
            row = {"outcome": "uncacheable", "why": str(error)}
        except (CannotCarryError, MalformedError, KeyDiffersError) as error:
            row = {"outcome": "refused", "why": str(error)}
        except Exception as error:  # noqa: BLE001 - what torch says of a rebuilt graph is what a worker would answer
            row = {"outcome": "refused", "why": f"{type(error).__name__}: {error}"}
        if row["why"] and (origin := origin_of_named(gm, row["why"])) and origin not in row["why"]:
            row["why"] += f", at {origin}"
        self.rows.append(row | {"why": " ".join(row["why"].split())[:400]})
        return gm.forward


def main(argv: list[str] | None = None) -> int:
    """Look at the chosen entries; return the exit code."""
    corpus = whole_corpus()
    parser = argparse.ArgumentParser(prog="python -m benches.corpus.traced", description="Look at the corpus.")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", choices=list(corpus), help="these entries")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, and keep those it has")
    options = parser.parse_args(argv)
    rows = json.loads(options.json.read_text())["rows"] if options.json and options.json.is_file() else []
    kept = {row["name"] for row in rows if "failed" not in row} - set(options.only)
    rows = [row for row in rows if row["name"] in kept]
    chosen = installed(
        entry for name, entry in corpus.items() if name not in kept and (not options.only or name in options.only)
    )
    for number, entry in enumerate(chosen, 1):
        begun = time.monotonic()
        rows.append(_looked_at(entry))
        say(f"{number}/{len(chosen)} {entry.name}: {_said(rows[-1])} ({time.monotonic() - begun:.0f} s)")
        if options.json is not None:
            write_document(options.json, _document(rows))
    document = _document(rows)
    last_line({name: value for name, value in document.items() if name != "rows"})
    return 1 if document["refused"] or document["failed"] else 0


def _looked_at(entry: Entry) -> dict[str, Any]:
    torch._dynamo.reset()
    torch.manual_seed(0)
    looking = Looking(entry.mode)
    row: dict[str, Any] = {"name": entry.name, "model": entry.model, "package": entry.package, "traits": entry.traits}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the packages' own
            run(entry, entry.make(), backend=looking)
    except Exception as error:  # noqa: BLE001 - an entry that cannot be run is a row that says so
        row["failed"] = f"{type(error).__name__}: {error}"[:300]
    return row | {"graphs": looking.rows}


def _document(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"bench": "corpus traced", "machine": machine(), **traced_totals(rows), "rows": list(rows)}


def _said(row: dict[str, Any]) -> str:
    outcomes = [graph["outcome"] for graph in row["graphs"]]
    parts = [f"{outcomes.count(outcome)} {outcome}" for outcome in dict.fromkeys(outcomes)]
    why = dict.fromkeys(graph["why"] for graph in row["graphs"] if graph["outcome"] == "refused")
    return "; ".join([*parts, *why, *([row["failed"]] if "failed" in row else [])])


if __name__ == "__main__":
    run_bench(main)
