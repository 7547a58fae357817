"""`python -m tests.twins` plays pairs of programs that differ in one thing, plainly and through daemons in both orders.

It prints what differed, and as the last line of standard output {"pairs": n, "differences": n, "lost": n}. The exit
code is 1 if anything differed, or if a hit was lost. `--write` puts the results into `docs/trust/twins.md` and `.json`.

With `--weaken PART` (or `--weaken all`) client and workers leave a part of the key out. The run then succeeds only if
the twins that this part keeps apart are confused: a harness that cannot fail shows nothing.

With `--traces` programs that come later skip the traces of earlier ones, where torch's guards say that they fit. What
came of it is kept by `--resume`, in a file of its own; `tools/traces.py` writes it down.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from rich.console import Console

from benches.harness.processes import run_bench
from tests.twins import kept
from tests.twins.judging import Result
from tests.twins.pairs import all_pairs, drawn, named, programs
from tests.twins.playing import play_all
from tests.twins.report import commit, summary, write, write_weakened
from tests.twins.stage import Stage
from tests.twins.thing import Pair
from tests.twins.weakening import known_parts, weakened

_COMMAND = "python -m tests.twins"
DRAWN_EACH = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Play what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=_COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="only name the pairs")
    parser.add_argument(
        "--only", action="append", metavar="PATTERN", help="a part of pairs' names, or a kind; * is anything"
    )
    parser.add_argument("--each", type=int, default=DRAWN_EACH, help=f"pairs of each thing, 0 for all [{DRAWN_EACH}]")
    parser.add_argument("--seed", type=int, default=0, help="draws other pairs, in another order [0]")
    parser.add_argument("--minutes", type=float, default=0, help="begin no program later than that [no limit]")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="programs at a time [cores]")
    parser.add_argument("--weaken", metavar="PART", help="leave a part of the key out, or `all` one after the other")
    parser.add_argument("--keep", type=Path, help="a folder with a short name: programs, logs and builds stay there")
    parser.add_argument("--traces", action="store_true", help="skip the traces of the programs that came before")
    parser.add_argument("--briefly", action="store_true", help="in one order only: plainly, A, B, and B again")
    parser.add_argument("--json", action="store_true", help="say each result as a line of JSON")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep outcomes there; play what has not passed yet")
    parser.add_argument("--write", action="store_true", help="write docs/trust/twins.md and its data")
    options = parser.parse_args(arguments)
    before = kept.load(options.resume) if options.resume else {}
    pairs = _chosen(options, played=before)
    if options.list:
        for pair in pairs:
            print(pair.name)
        return 0
    talk = Console(stderr=True, highlight=False)
    if options.weaken:
        return _weaken(options, talk)
    # The folder is in /tmp whatever TMPDIR says, because a Unix socket's path has at most 107 bytes.
    folder = options.keep or Path(tempfile.mkdtemp(prefix="twins-", dir="/tmp"))
    earlier = {pair.name: before[pair.name] for pair in pairs if pair.name in before}
    waiting = programs([pair for pair in pairs if pair.name not in before], seed=options.seed)
    commits = sorted({one.commit for one in earlier.values()} | {commit()})
    played = {name: one.result for name, one in earlier.items()}
    try:
        with Stage.prepared(folder, workers=max(1, options.jobs // 2), skip_traces=options.traces) as stage:
            limits = {"jobs": options.jobs, "minutes": options.minutes, "briefly": options.briefly}
            for result in play_all(stage, waiting, talk=talk, **limits):
                played[result.name] = result
                if options.resume:
                    kept.append(options.resume, result, commit())
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    results = list(played.values())
    for result in results:
        if options.json:
            print(json.dumps(dataclasses.asdict(result)))
        elif not result.passed:
            print("\n    ".join([result.name, *result.differences, *(f"hit lost: {said}" for said in result.lost)]))
    if options.write:
        command = f"{_COMMAND} {shlex.join(arguments or sys.argv[1:])}"
        write(results, command=command, seed=options.seed, commits=commits, drawn=len(pairs))
    print(json.dumps(summary(results)))
    return _code(results, pairs)


def _chosen(options: argparse.Namespace, *, played: Collection[str]) -> list[Pair]:
    pairs = all_pairs()
    if options.only and not (pairs := named(pairs, options.only)):
        raise SystemExit(f"no pair is like {', '.join(options.only)}; --list names all")
    return drawn(pairs, seed=options.seed, each=options.each, played=played) if options.each else pairs


def _code(results: Sequence[Result], pairs: Sequence[Pair]) -> int:
    return 0 if results and all(result.passed for result in results) and pairs else 1


def _weaken(options: argparse.Namespace, talk: Console) -> int:
    parts = known_parts()
    wanted = parts if options.weaken == "all" else [options.weaken]
    if unknown := set(wanted) - set(parts):
        raise SystemExit(f"no such part: {', '.join(sorted(unknown))}; there are: {', '.join(parts) or 'none'}")
    blind, found = [], {}
    for part in wanted:
        folder = Path(tempfile.mkdtemp(prefix="twins-", dir="/tmp"))
        try:
            said = weakened(part, folder, seed=options.seed, jobs=options.jobs, only=options.only or (), talk=talk)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(f"{part}: {said or 'NOT NOTICED'}")
        blind += [] if said else [part]
        found[part] = said
    if options.write:
        write_weakened(found, command=f"{_COMMAND} --weaken PART")
    print(json.dumps({"parts": len(wanted), "noticed": len(wanted) - len(blind), "not noticed": blind}))
    return 1 if blind or not wanted else 0


if __name__ == "__main__":
    run_bench(main)
