"""`export` and `import`: what a daemon keeps, in a file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, cli, print_result
from compiler_daemon.config import Place
from compiler_daemon.errors import UsageError


@cli.command(name="export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written whole or not at all.", dir_okay=False)],
    keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="Keys or ids, or their beginnings. [all]")
    ] = None,
    program: Annotated[str, typer.Option(metavar="NAME", help="Only what this program brought.")] = "",
    graphs: Annotated[
        bool, typer.Option("--graphs", help="Graphs instead of artifacts: small, unsigned, compiled again by `replay`.")
    ] = False,
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: AsJson = False,
) -> None:
    """Write artifacts to a signed file that `import` reads, or graphs to a file that `replay` compiles.

    Example: compiler-daemon export sweep.bundle --program benches.multires
    """
    from compiler_daemon.cli.terminal import counting, size_text
    from compiler_daemon.exporting import Exporter
    from compiler_daemon.inventory_client import InventoryClient
    from compiler_daemon.operator_client import OperatorClient, read_secret

    if keys and program:
        raise UsageError("name keys or a --program, not both")
    place = Place.resolve(os.environ, directory=directory, address=address)
    client = InventoryClient(OperatorClient.of(place))
    with counting("exporting") as progress:
        exporter = Exporter(client, progress)
        if graphs:
            done = exporter.graphs(file, program=program, names=keys or ())
        else:
            done = exporter.artifacts(file, program=program, names=keys or (), secret=read_secret(place.directory))
    for sentence in done.left_out:
        typer.echo(f"left out: {sentence}", err=True)
    if as_json:
        print_result(json.dumps({"file": str(file), **asdict(done)}))
    else:
        what = f"{done.graphs} graphs" if graphs else f"{done.artifacts} artifacts and {done.graphs} graphs"
        print_result(f"{file}: {what} of {done.environments} environments, {size_text(done.bytes)}")
    if done.left_out:
        raise typer.Exit(1)
