"""How much of what others wrote the daemon can take: models of PyPI's packages, trained and run with a real daemon.

    python -m benches.corpus [--only NAME ...] [--json FILE] [--folder DIR]

Each entry runs in three processes with empty directories: torch alone, with a daemon that has nothing of it, and with
that daemon again. Losses, gradients, parameters and outputs must be the same in all three, bit for bit. With `--json`
rows are written as they come, and a run that finds FILE goes on where that one stopped (`--again` begins anew). The
packages are those of the extras `corpus` and `pictures`; entries of packages that are not installed are left out, and
said.

Ends with a table and, last line on stdout, one JSON document. Exit code 1 where an entry failed, a number differs, a
second start compiled anything that torch can cache, or the daemon compiled less than 97 % of those graphs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benches.corpus.registry import Entry, installed, whole_corpus
from benches.corpus.rounds import Corpus
from benches.corpus.summary import complaints, outcome, summary
from benches.harness.machine import machine
from benches.harness.output import complain, last_line, say, write_document
from benches.harness.processes import run_bench


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    corpus = whole_corpus()
    options = _options(argv, corpus)
    if options.list:
        for entry in corpus.values():
            say(f"{entry.name}  {entry.package}  {entry.traits}")
        return 0
    chosen = [corpus[name] for name in dict.fromkeys(options.only or corpus)]
    there = installed(chosen)
    rows = _kept(options.json, again=options.again, chosen=chosen if options.only else [])
    with contextlib.ExitStack() as stack:
        fresh = options.folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="compiler-daemon-corpus-"))
        run = Corpus(Path(fresh) / "corpus")
        try:
            _run(run, [entry for entry in there if entry.name not in rows], rows, options.json)
        finally:
            run.close()
    document = _document(list(rows.values()))
    Console(width=150).print(_table(document["rows"]))
    wrong = complaints(document["summary"])
    for line in wrong:
        complain(line)
    last_line({name: value for name, value in document.items() if name != "rows"})
    return 1 if wrong else 0


def _options(argv: list[str] | None, corpus: dict[str, Entry]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benches.corpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", choices=list(corpus), help="these entries, in this order"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here, and go on from those it has")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="work here, and leave torch's headers for the next run"
    )
    parser.add_argument("--again", action="store_true", help="run what the file has once more")
    parser.add_argument("--list", action="store_true", help="say which entries there are")
    return parser.parse_args(argv)


def _run(run: Corpus, entries: Sequence[Entry], rows: dict[str, Any], path: Path | None) -> None:
    begun = time.monotonic()
    for number, entry in enumerate(entries, 1):
        row = rows[entry.name] = run.run(entry)
        spent = time.monotonic() - begun
        left = spent / number * (len(entries) - number)
        say(f"{number}/{len(entries)} {entry.name}: {outcome(row)} ({spent:.0f} s, about {left:.0f} s to go)")
        if path is not None:
            write_document(path, _document(list(rows.values())))


def _kept(path: Path | None, *, again: bool, chosen: Sequence[Entry]) -> dict[str, Any]:
    """Return the rows of an earlier run with this torch; those that are `chosen` run once more where asked."""
    if path is None or not path.is_file():
        return {}
    before = json.loads(path.read_text())
    if before["machine"]["torch"] != version("torch"):
        say(f"{path} is of torch {before['machine']['torch']}: nothing of it is kept")
        return {}
    if again and not chosen:
        return {}
    rerun = {entry.name for entry in chosen} if again else set()
    return {row["name"]: row for row in before["rows"] if row["name"] not in rerun and "failed" not in row}


def _document(rows: list[dict[str, Any]]) -> dict[str, Any]:
    order = list(whole_corpus())
    rows = sorted(rows, key=lambda row: order.index(row["name"]) if row["name"] in order else len(order))
    return {"bench": "corpus", "machine": machine(), "summary": summary(rows), "rows": rows}


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="the corpus", title_justify="left")
    for column in ("entry", "how", "outcome"):
        table.add_column(column)
    for row in rows:
        table.add_row(row["name"], row["traits"], outcome(row))
    return table


if __name__ == "__main__":
    run_bench(main)
