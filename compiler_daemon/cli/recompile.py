"""`replay`: kept graphs compiled again."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, cli, print_result
from compiler_daemon.config import DaemonLocation
from compiler_daemon.errors import BundleError, UsageError

if TYPE_CHECKING:
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.recompile.run import Outcome


@cli.command(epilog="Example: compiler-daemon export --graphs sweep.graphs; compiler-daemon replay sweep.graphs")
def replay(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A file that `export --graphs` wrote; `-` is stdin.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All graphs that the daemon keeps itself.")] = False,
    program: Annotated[str, typer.Option(metavar="NAME", help="Only what this program brought.")] = "",
    python: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Compile with the torch of this interpreter, one on the daemon's host; by default this one.",
        ),
    ] = "",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="Compile for trainers with so many threads; by default as many as the graph was captured with."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Graphs handed over at a time.")] = 8,
    served: Annotated[
        bool, typer.Option("--served", help="Only say how many replayed graphs served a trainer.")
    ] = False,
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: AsJson = False,
) -> None:
    """Compile kept graphs again, here and now: no trainer, no data.

    After an upgrade of torch, on another machine, or when artifacts have gone. A graph that is stored already is left
    alone. Exit code 1 where a graph was refused.
    """
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.inventory.calls import InventoryClient

    chosen = file is not None or everything or bool(program)
    if served == chosen or (file is not None and everything):
        raise UsageError("name a FILE of graphs, or --all or --program for the daemon's own, or --served: one of them")
    with OperatorClient.of(DaemonLocation.resolve(os.environ, directory=directory, address=address)) as operator:
        if served:
            from compiler_daemon.admin.recompile.view import Served

            counted = Served.of(InventoryClient(operator).artifacts(origin="replay"))
            print_result(json.dumps(asdict(counted)) if as_json else counted.sentence)
            return
        python = python or sys.executable
        outcomes = _replayed(operator, file, program=program, python=python, threads=threads, jobs=jobs)
    from compiler_daemon.admin.recompile.view import as_document, print_outcomes

    if as_json:
        print_result(json.dumps(as_document(outcomes)))
    else:
        print_outcomes(outcomes)
    if any(outcome.status == "refused" for outcome in outcomes):
        raise typer.Exit(1)


def _replayed(
    operator: OperatorClient, file: Path | None, *, program: str, python: str, threads: int | None, jobs: int
) -> list[Outcome]:
    from compiler_daemon.admin.bundle import Bundle
    from compiler_daemon.admin.inventory.calls import InventoryClient
    from compiler_daemon.admin.recompile.run import Replayer, from_file, kept
    from compiler_daemon.cli.terminal import counting

    with ExitStack() as scope:
        if file is not None:
            bundle = scope.enter_context(Bundle.open(file, kind="graphs"))
            total = sum(program in ("", one.program) for one in bundle.index.requests)
            graphs = from_file(bundle, program=program)
        else:
            listed = kept(InventoryClient(operator), program=program)
            total, graphs = len(listed), iter(listed)
        if not total:
            raise BundleError("no graph is kept of what you named: `compiler-daemon ls` lists what there is")
        replayer = Replayer(operator, interpreter=python, threads=threads, jobs=jobs)
        done = 0
        progress = scope.enter_context(counting("replaying"))
        progress(0, total)

        def note(_outcome: Outcome) -> None:
            nonlocal done
            done += 1
            progress(done, total)

        return replayer.run(graphs, note)
