"""`export` and `import`: what a daemon keeps, in a file."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from compile_wire.plain import plain
from compiler_daemon.cli.completion import complete_key, complete_program
from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, cli, print_result
from compiler_daemon.config import DaemonLocation
from compiler_daemon.errors import DaemonError, UsageError


@cli.command(name="export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written whole or not at all; `-` is stdout.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Keys or ids, or their beginnings. [all]", autocompletion=complete_key),
    ] = None,
    program: Annotated[
        str, typer.Option(metavar="NAME", help="Only what this program brought.", autocompletion=complete_program)
    ] = "",
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
    from compiler_daemon.admin.bundle.export import Exporter
    from compiler_daemon.admin.connection import OperatorClient, read_secret
    from compiler_daemon.admin.inventory.calls import InventoryClient
    from compiler_daemon.admin.output import STDOUT
    from compiler_daemon.cli.terminal import counting
    from compiler_daemon.text import numbers

    if keys and program:
        raise UsageError("name keys or a --program, not both")
    if (to_stdout := file == STDOUT) and as_json:
        raise UsageError("the file goes to stdout, and so would the JSON: name a file, or leave --json out")
    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)
    with OperatorClient.of(place) as operator, counting("exporting") as progress:
        exporter = Exporter(InventoryClient(operator), progress)
        if graphs:
            done = exporter.graphs(file, program=program, names=keys or ())
        else:
            done = exporter.artifacts(file, program=program, names=keys or (), secret=read_secret(place.directory))
    for sentence in done.left_out:
        typer.echo(f"left out: {plain(sentence)}", err=True)
    if as_json:
        print_result(json.dumps({"file": str(file), **asdict(done)}))
    else:
        what = (
            f"{numbers.counted(done.graphs, 'graph')}"
            if graphs
            else f"{numbers.counted(done.artifacts, 'artifact')} and {numbers.counted(done.graphs, 'graph')}"
        )
        told = f"{what} of {numbers.counted(done.environments, 'environment')}, {numbers.size(done.bytes)}"
        if to_stdout:
            typer.echo(told, err=True)
        else:
            print_result(f"{file}: {told}")
    if done.left_out:
        raise typer.Exit(1)


@cli.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` wrote; `-` is stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify and judge; store nothing.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also what does not fit this machine.")] = False,
    secret_file: Annotated[
        Path | None,
        typer.Option(metavar="F", help="The secret of the daemon that made the bundle, mode 0600. [DIR/secret]"),
    ] = None,
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: AsJson = False,
) -> None:
    """Take in a bundle of `export`, verified whole first. What is there stays: an import only ever adds.

    Artifacts are code. A bundle of another daemon is taken only with that daemon's secret.

    Example: compiler-daemon import sweep.bundle --dry-run
    """
    from compiler_daemon.admin.bundle import Bundle
    from compiler_daemon.admin.bundle.import_ import Importer
    from compiler_daemon.admin.connection import OperatorClient, read_secret
    from compiler_daemon.admin.inventory.calls import InventoryClient
    from compiler_daemon.cli.terminal import counting
    from compiler_daemon.endpoint import read_secret_file
    from compiler_daemon.text import numbers

    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)
    with OperatorClient.of(place) as operator, Bundle.open(file, kind="artifacts") as bundle:
        try:
            secret = read_secret_file(secret_file) if secret_file else read_secret(place.directory)
        except OSError as error:
            raise UsageError(f"{secret_file} cannot be read: {error.strerror}") from error
        importer = Importer(InventoryClient(operator), bundle, secret=secret)
        preflight = importer.preflight
        if not as_json:
            print_result(preflight.sentence)
        room = importer.missing_bytes(everything=everything)
        result = {"preflight": asdict(preflight), "new_bytes": room, "dry_run": dry_run}
        if dry_run:
            print_result(json.dumps(result) if as_json else f"an import would add {numbers.size(room)}")
            return
        if not (preflight.fitting or everything):
            raise DaemonError("nothing of it fits this machine, and nothing was imported: --all takes it all the same")
        status = operator.status()
        free = status.store_max_bytes - status.store_bytes
        if room > free:
            raise DaemonError(
                f"the import needs {numbers.size(room)} and the store has {numbers.size(max(free, 0))} left: serve "
                "with a larger --store-size, or make room with `compiler-daemon gc --max-size`; nothing was imported"
            )
        with counting("importing") as progress:
            done = importer.run(everything=everything, progress=progress)
    if as_json:
        print_result(json.dumps({**result, **asdict(done)}))
        return
    told = f"imported {numbers.counted(done.imported, 'artifact')}, {numbers.size(done.bytes)}"
    if done.present:
        told += f"; {done.present} were there already"
    if done.passed_over:
        told += f"; {done.passed_over} that do not fit this machine were passed over (--all takes them)"
    print_result(told)
