"""`explain` and `stats`: why graphs missed, and what the daemon has saved."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, cli, print_result
from compiler_daemon.config import DaemonLocation
from compiler_daemon.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from compiler_daemon.admin.answers import Figures


@cli.command()
def explain(
    key: Annotated[str, typer.Argument(metavar="[KEY]", help="A key, or its beginning. [the last run]")] = "",
    program: Annotated[str, typer.Option(metavar="NAME", help="The last run of this program.")] = "",
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: AsJson = False,
) -> None:
    """Say why each graph and kernel of the last run that missed did: what differs from the nearest known one.

    Example: compiler-daemon explain --program train.py
    """
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.insight.calls import RunClient

    if key and program:
        raise UsageError("name a key or a --program, not both")
    with OperatorClient.of(DaemonLocation.resolve(os.environ, directory=directory, address=address)) as operator:
        answer = RunClient(operator).explain(key=key, program=program)
    if as_json:
        print_result(json.dumps(answer.document))
    else:
        from compiler_daemon.admin.insight.explain_view import print_explanation

        print_explanation(answer)


@cli.command()
def stats(
    watch: Annotated[bool, typer.Option("--watch", help="Show them again and again, until interrupted.")] = False,
    every: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="How often, with --watch.")] = 2.0,
    zero: Annotated[
        bool, typer.Option("--zero", "-z", help="Show them, and count from now on; --all still has everything.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Since the store was made, also after --zero.")] = False,
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: AsJson = False,
) -> None:
    """Show hits, misses and fallbacks with their reasons, seconds saved and spent, slowest graphs, each program.

    Example: compiler-daemon stats --watch --every 5
    """
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.insight.calls import RunClient
    from compiler_daemon.admin.inventory.offline import nobody_serves

    if zero and (watch or everything):
        raise UsageError("--zero begins anew: leave --watch and --all out")
    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)
    if not watch and nobody_serves(place):
        from compiler_daemon.admin.insight.offline import stored_statistics

        figures = stored_statistics(place)
    else:
        with OperatorClient.of(place) as operator:
            client = RunClient(operator)
            if watch:
                with suppress(KeyboardInterrupt):
                    _watch(lambda: _chosen(place, client.statistics(), everything)[0], every, as_json=as_json)
                return
            figures = client.statistics()
    shown, since = _chosen(place, figures, everything)
    if as_json:
        print_result(json.dumps({**shown.document, **({"since": since} if since else {})}))
    else:
        from compiler_daemon.admin.insight.statistics_view import print_statistics

        print_statistics(shown, since=since)
    if zero:
        from compiler_daemon.admin.insight.since import begin_again

        begin_again(place.directory, figures)
        typer.echo("the next `stats` counts from now on", err=True)


def _chosen(place: DaemonLocation, figures: Figures, everything: bool) -> tuple[Figures, float]:
    """Return the figures to be shown, and since when they are: 0 for since the store was made."""
    from compiler_daemon.admin.insight.since import since_then

    return (figures, 0.0) if everything else since_then(place.directory, figures)


def _watch(ask: Callable[[], Figures], every_s: float, *, as_json: bool) -> None:
    from compiler_daemon.admin.insight.statistics_view import statistics_line, statistics_view

    if as_json or not sys.stdout.isatty():
        while True:
            now = ask()
            print_result(json.dumps(now.document) if as_json else f"{time.strftime('%H:%M:%S')} {statistics_line(now)}")
            time.sleep(every_s)
    from rich.live import Live

    with Live(statistics_view(ask()), auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(every_s)
            live.update(statistics_view(ask()), refresh=True)
