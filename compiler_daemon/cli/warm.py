"""`warm`: a sweep's graphs, compiled before the sweep."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from compile_wire.plain import plain
from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, cli, print_result
from compiler_daemon.config import DaemonLocation
from compiler_daemon.errors import UsageError
from compiler_daemon.text import numbers

if TYPE_CHECKING:
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.sweep.cell import CellResult, SweepContext
    from compiler_daemon.admin.sweep.plan import Cell
    from compiler_daemon.admin.sweep.runner import WarmupConfig


def _default_jobs() -> int:
    """Return how many trainers run at once: two at least, so that one traces while another's graphs are compiled."""
    return max(2, len(os.sched_getaffinity(0)) // 2)


@cli.command(
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    epilog="Example: compiler-daemon warm --matrix size=16,32,64 -- python train.py --size {size} --steps 1",
)
def warm(
    command: Annotated[list[str] | None, typer.Argument(metavar="COMMAND...", help="The trainer, behind `--`.")] = None,
    matrix: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE,...", help="Values for {NAME} in the command; several make a grid."),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A TOML file of sweeps: a table `sweep` with `command`, a table `matrix`."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trainers at a time; by default half of the cores, at least 2.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--again",
            help="Skip cells that an earlier run has finished and whose graphs are stored still. A changed trainer "
            "is not noticed: run all cells again then, which is the default.",
        ),
    ] = False,
    keep_going: Annotated[bool, typer.Option(help="Run the other cells where one fails.")] = True,
    ordinary_run: Annotated[
        bool,
        typer.Option(help="Run a cell once more, as always, for graphs that only a trainer can compile."),
    ] = True,
    share: Annotated[
        bool,
        typer.Option("--share", help="Other nodes run the same sweep: compile what none of them has in hand."),
    ] = False,
    seed: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="With --share, what decides the order of the cells here. [host and process]"),
    ] = None,
    cell_seconds: Annotated[float, typer.Option(min=1, help="A trainer that runs longer is ended.")] = 3600.0,
    steps: Annotated[
        int,
        typer.Option(min=0, help="A trainer ends after so many steps without a new graph; 0 lets it run to its end."),
    ] = 100,
    aside: Annotated[
        bool,
        typer.Option(
            help="Keep away what trainers write below their own directory, where the kernel can, and have wandb, "
            "MLflow and Neptune tell nobody; or let them write as always."
        ),
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells and their commands only.")] = False,
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: AsJson = False,
) -> None:
    """Run a trainer once for each cell of a sweep, in compile-only mode, so that the sweep itself compiles nothing.

    The trainer is unchanged. Its graphs go to the daemon in the background and run eagerly here: give it few steps.

    What it writes below its own directory, as checkpoints, goes with the cell, and so does {scratch}, a folder to be
    named in the command. What it writes elsewhere stays.

    With --share on several nodes that share a tier each graph is compiled once, and at the end every node has all.

    Exit code 1 where a cell failed.
    """
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.sweep.plan import from_manifest, from_options
    from compiler_daemon.admin.sweep.sharing import check_can_share, in_own_order, seed_of_this_process

    if manifest is not None and (command or matrix):
        raise UsageError("either --manifest, or a command with --matrix: not both")
    if seed is not None and not share:
        raise UsageError("--seed is for --share: alone, a node runs the cells in their order")
    cells = from_manifest(manifest) if manifest is not None else from_options(command or [], matrix or [])
    if share:
        seed = seed or seed_of_this_process()
        cells = in_own_order(cells, seed)
    if dry_run:
        _print_cells(cells, as_json=as_json)
        return
    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)
    from compiler_daemon.admin.sweep.cell import SweepContext
    from compiler_daemon.admin.sweep.runner import WarmupConfig

    context = SweepContext(
        directory=place.directory,
        address=str(place.address) if place.address else "",
        aside=False,
        offline=aside,
        steps=steps,
    )
    config = WarmupConfig(
        jobs=jobs or _default_jobs(), keep_going=keep_going, cell_s=cell_seconds, ordinary_run=ordinary_run
    )
    with OperatorClient.of(place, call_s=_STATUS_S) as client:
        state = client.status()  # without a daemon there is nothing to warm, and this says so
        if share:
            check_can_share(state, place.directory)
            typer.echo(f"sharing; this order of the cells is --seed {plain(seed or '')}", err=True)
        context = _kept_away(context, cells, wanted=aside)
        results = _run(cells, config, context, client, resume=resume)
    _print_results(results, seed=seed, as_json=as_json)
    if any(result.failure for result in results) or len(results) < len(cells):
        raise typer.Exit(1)


_STATUS_S = 3.0


def _run(
    cells: list[Cell], config: WarmupConfig, context: SweepContext, client: OperatorClient, *, resume: bool
) -> list[CellResult]:
    from compiler_daemon.admin.sweep import progress_file as record
    from compiler_daemon.admin.sweep.runner import SweepRunner
    from compiler_daemon.admin.sweep.view import watching

    skipped = _done_before(cells, context, client) if resume else []
    done_before = {result.cell for result in skipped}
    with watching() as watcher, _stopped_by_signals():
        for result in skipped:
            watcher.result(result)

        def note(result: CellResult) -> None:
            record.remember(context, result, os.environ)
            watcher.result(result)

        runner = SweepRunner(
            config, context, os.environ, status=client.status, on_change=watcher.change, on_result=note
        )
        done = runner.run(cell for cell in cells if cell not in done_before)
    order = {cell: number for number, cell in enumerate(cells)}
    return sorted([*skipped, *done], key=lambda result: order[result.cell])


def _done_before(cells: list[Cell], context: SweepContext, client: OperatorClient) -> list[CellResult]:
    """Return the cells that an earlier run has finished and whose artifacts are all there still."""
    from compiler_daemon.admin.inventory.calls import InventoryClient
    from compiler_daemon.admin.sweep import progress_file as record
    from compiler_daemon.admin.sweep.cell import CellResult

    known = {cell: done for cell in cells if (done := record.recall(context, cell, os.environ)) is not None}
    stored = {(row.environment, row.key) for row in InventoryClient(client).artifacts()} if known else set()
    return [
        CellResult(cell=cell, seconds=0.0, skipped=True)
        for cell, done in known.items()
        if {(done.environment, key) for key in done.keys} <= stored
    ]


def _kept_away(context: SweepContext, cells: list[Cell], *, wanted: bool) -> SweepContext:
    """Say what of the trainers is kept away; return what the cells share, with whether their files can be."""
    from compiler_daemon.admin.sweep import aside

    said = [f"each ends {numbers.counted(context.steps, 'step')} after its last new graph"] if context.steps else []
    if wanted:
        why = aside.why_not({Path(cell.directory or ".").absolute() for cell in cells}, context.folder)
        context = replace(context, aside=not why)
        files = f"files are written as always, since {why}" if why else "their files go with them"
        said = [files, "wandb, MLflow and Neptune tell nobody of them", *said]
    if said:
        typer.echo(plain(f"trainers: {'; '.join(said)}"), err=True)
    return context


def _print_cells(cells: list[Cell], *, as_json: bool) -> None:
    import shlex

    if as_json:
        print_result(json.dumps({"cells": [{"cell": cell.label, "command": cell.command} for cell in cells]}))
        return
    for cell in cells:
        print_result(f"{cell.label}: {shlex.join(cell.command)}")


def _print_results(results: list[CellResult], *, seed: str | None, as_json: bool) -> None:
    """Print what became of the cells; with a `seed` also who compiled what."""
    from compiler_daemon.admin.sweep.recompile_limit import warnings
    from compiler_daemon.admin.sweep.sharing import Shares
    from compiler_daemon.admin.sweep.view import as_document, print_table

    said = warnings(results)
    if as_json:
        documents = [as_document(result) for result in results]
        totals = {
            name: sum(document[name] for document in documents)
            for name in ("graphs", "already_there", "compiled", "on_other_nodes", "compiled_here")
        }
        failed = sum(document["status"] == "failed" for document in documents)
        shared = {} if seed is None else {"shared": Shares.of(results).as_document(seed)}
        print_result(json.dumps({"cells": documents, "failed": failed, "warnings": said, **totals, **shared}))
    else:
        print_table(results)
        if seed is not None:
            print_result(plain(Shares.of(results).sentence))
    for sentence in said:
        typer.echo(f"warning: {plain(sentence)}", err=True)
    for result in results:
        for row in result.refused:
            typer.echo(plain(f"refused: {result.cell.label}: graph {row.key[:16]} of {row.code}: {row.why}"), err=True)
        if result.failure:
            typer.echo(f"failed: {result.cell.label}: {result.failure} (its output: {result.log})", err=True)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let a SIGTERM end the block as Ctrl-C does, so that its trainers end, too."""

    def stop(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; what follows is cleaning up
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("stopped; no trainer is left. --resume goes on with the cells that are not done", err=True)
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)
