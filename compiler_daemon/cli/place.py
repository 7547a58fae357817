"""`dir`, `logs`, `clean`: a daemon's directory as a place of the disk."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Annotated

import typer

from compiler_daemon.cli.options import AsJson, Directory, cli, print_result
from compiler_daemon.config import DaemonLocation
from compiler_daemon.errors import UsageError


@cli.command(name="dir")
def directory_(directory: Directory = None, as_json: AsJson = False) -> None:
    """Print the daemon's directory, whether it is there or not.

    Example: du -sh "$(compiler-daemon dir)"
    """
    place = DaemonLocation.resolve(os.environ, directory=directory, address=None)
    if as_json:
        print_result(json.dumps({"directory": str(place.directory), "exists": place.directory.is_dir()}))
    else:
        print_result(str(place.directory))


@cli.command()
def logs(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Whose: daemon, or a worker's name, as worker-0.")
    ] = "daemon",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until interrupted.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines; 0 for all.")] = 100,
    directory: Directory = None,
) -> None:
    """Show what a daemon in the background has logged, or one of its workers.

    Example: compiler-daemon logs -f
    """
    from compiler_daemon.admin.life.logs import Log, log_named

    place = DaemonLocation.resolve(os.environ, directory=directory, address=None)
    with Log(log_named(place.directory, name)) as log, suppress(KeyboardInterrupt):
        for line in log.last_lines(lines):
            print_result(line)
        for line in log.follow() if follow else ():
            print_result(line)


@cli.command()
def clean(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="Also the keys for TLS and for signing; other machines need new ones then.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Stop the daemon, and remove everything that it has written. What others have put into its directory stays.

    Example: compiler-daemon clean --dry-run
    """
    from compiler_daemon.admin.life.cleaning import clear, written_by_daemon
    from compiler_daemon.admin.life.ending import end_daemon
    from compiler_daemon.cli.terminal import may_ask
    from compiler_daemon.text import numbers

    place = DaemonLocation.resolve(os.environ, directory=directory, address=None)
    found = written_by_daemon(place.directory, keys=keys)
    size = sum(one.bytes for one in found)
    what = f"{', '.join(one.path.name for one in found)} in {place.directory}, {numbers.size(size)}"
    if found and not dry_run:
        if not yes:
            if not may_ask():
                raise UsageError("nobody is there to be asked: say --yes")
            if not typer.confirm(f"Stop the daemon, and remove {what}?", err=True):
                raise typer.Exit(1)
        end_daemon(place, now=True)
        clear(place.directory, found)
    if as_json:
        paths = [str(one.path) for one in found]
        print_result(
            json.dumps({"directory": str(place.directory), "removed": paths, "bytes": size, "dry_run": dry_run})
        )
    elif not found:
        print_result(f"nothing of a daemon's is in {place.directory}")
    else:
        print_result(f"{'would remove' if dry_run else 'removed'} {what}")
