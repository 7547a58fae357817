"""The command line: `serve`, `status`, `stop`, `doctor`.

Results on stdout, talk on stderr. Exit codes: 0 done, 1 failed, 2 wrong use. Whatever goes wrong is one sentence that
says what to do.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from compiler_daemon.config import DaemonConfig, Place, PoolConfig
from compiler_daemon.errors import DaemonError, UsageError

_GIB = 2**30
_DOCTOR_CALL_S = 3.0
"""Three times what the daemon of a busy machine needs; whoever asks a doctor waits for the answer."""

Directory = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="The daemon's directory. [COMPILER_DAEMON_DIR, else the user's cache]"),
]
ListenAddress = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="unix:PATH or HOST:PORT. [COMPILER_DAEMON_ADDRESS, else a socket in DIR]"),
]

cli = typer.Typer(
    help="A compile daemon for torch: each graph compiled once, verified, and served to every trainer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Run the command line and exit."""
    try:
        cli(prog_name="compiler-daemon")
    except UsageError as error:
        _fail(error, code=2)
    except (DaemonError, OSError) as error:
        _fail(error)


@cli.command()
def serve(
    directory: Directory = None,
    address: ListenAddress = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes. [half of the cores]")] = None,
    store_gib: Annotated[float, typer.Option(min=0.001, help="Room for artifacts.")] = 20.0,
    job_seconds: Annotated[float, typer.Option(min=1, help="A compile that runs longer is killed.")] = 900.0,
    job_gib: Annotated[
        float | None, typer.Option(min=0.001, help="Memory of one compile. [half of the machine's]")
    ] = None,
    drain_seconds: Annotated[float, typer.Option(min=0, help="How long a stop waits for running compiles.")] = 60.0,
    prewarm: Annotated[bool, typer.Option(help="Start a worker when a client says hello.")] = True,
    publish: Annotated[bool, typer.Option(help="Take artifacts that clients compiled.")] = True,
    reflection: Annotated[bool, typer.Option("--reflection", help="Serve gRPC reflection.")] = False,
    insecure_loopback: Annotated[
        bool, typer.Option("--insecure-loopback", help="Allow a plain TCP address on the loopback interface.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every call.")] = False,
) -> None:
    """Serve until stopped; prints `ready ADDRESS` when calls are answered."""
    place = Place.resolve(os.environ, directory=directory, address=address)
    pool = PoolConfig(wall_s=job_seconds, prewarm=prewarm)
    if workers is not None:
        pool = replace(pool, max_workers=workers)
    if job_gib is not None:
        pool = replace(pool, memory_bytes=int(job_gib * _GIB))
    serve_config(
        DaemonConfig(
            directory=place.directory,
            address=place.address or place.default_address,
            insecure_loopback=insecure_loopback,
            reflection=reflection,
            allow_publish=publish,
            store_max_bytes=int(store_gib * _GIB),
            drain_s=drain_seconds,
            pool=pool,
        ),
        verbose=verbose,
    )


def serve_config(config: DaemonConfig, *, verbose: bool = False) -> None:
    """Serve with these settings until stopped."""
    # Here, and not above: `status` and `stop` need none of it.
    from compiler_daemon.app import serve as serve_daemon
    from compiler_daemon.store import StoreError

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("asyncio").setLevel(logging.INFO)
    try:
        asyncio.run(serve_daemon(config, on_ready=_say_ready))
    except StoreError as error:
        _fail(error)


@cli.command()
def status(
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what the daemon does now; exit code 1 where none runs."""
    from compiler_daemon.operator_client import OperatorClient

    state = OperatorClient.of(Place.resolve(os.environ, directory=directory, address=address)).status()
    if as_json:
        _print(json.dumps(state))
    else:
        from compiler_daemon.status_view import print_status

        print_status(state)


@cli.command()
def stop(
    directory: Directory = None,
    address: ListenAddress = None,
    wait: Annotated[bool, typer.Option(help="Return when the daemon has gone.")] = True,
) -> None:
    """Stop the daemon gracefully. None running is fine."""
    from compiler_daemon.identity import DirectoryLock
    from compiler_daemon.operator_client import NotRunningError, OperatorClient

    place = Place.resolve(os.environ, directory=directory, address=address)
    lock = DirectoryLock(place.directory)
    try:
        OperatorClient.of(place).shutdown()
    except NotRunningError as error:
        if lock.is_held():
            # It drains already, and answers no more.
            typer.echo("the daemon stops already", err=True)
        else:
            typer.echo(f"nothing to stop: {error}", err=True)
            return
    while wait and lock.is_held():
        time.sleep(0.05)


@cli.command()
def doctor(
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what is wrong and what to do, a line for each check; exit code 1 where something is."""
    from compiler_daemon.doctor import examine
    from compiler_daemon.operator_client import OperatorClient

    place = Place.resolve(os.environ, directory=directory, address=address)

    def ask() -> tuple[str, dict[str, Any]]:
        client = OperatorClient.of(place, call_s=_DOCTOR_CALL_S)
        return client.health(), client.status()

    findings = examine(place, os.environ, ask)
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        _print(json.dumps({"problems": problems, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            _print(f"{finding.level:<8}{finding.check}: {finding.text}")
    if problems:
        raise typer.Exit(1)


def _say_ready(address: str) -> None:
    _print(f"ready {address}")


def _print(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()


def _fail(error: Exception, *, code: int = 1) -> NoReturn:
    typer.echo(f"compiler-daemon: {error}", err=True)
    raise SystemExit(code)
