"""`serve`, `status`, `stop`: a daemon's life."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, age, cli, print_result, some_bytes
from compiler_daemon.config import (
    ClientAuth,
    DaemonConfig,
    DaemonLocation,
    PoolConfig,
    TierAccept,
    TierConfig,
    sandbox_mode,
)
from compiler_daemon.errors import UsageError
from compiler_daemon.tier.address import tier_places
from compiler_daemon.workers.variables import named_variables

_STORE_SIZE: Any = "20GiB"  # as it is typed


@cli.command()
def serve(
    directory: Directory = None,
    address: ListenAddress = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Worker processes. [half of the cores]")] = None,
    store_size: Annotated[
        int,
        typer.Option(
            "--store-size", "--store-gib", metavar="SIZE", parser=some_bytes, help="Room for artifacts: 50GB."
        ),
    ] = _STORE_SIZE,
    job_seconds: Annotated[float, typer.Option(min=1, help="A compile that runs longer is killed.")] = 900.0,
    job_memory: Annotated[
        int | None,
        typer.Option(
            "--job-memory",
            "--job-gib",
            metavar="SIZE",
            parser=some_bytes,
            help="Memory of one compile: 8GB. [half of the machine's]",
        ),
    ] = None,
    drain_seconds: Annotated[float, typer.Option(min=0, help="How long a stop waits for running compiles.")] = 60.0,
    prewarm: Annotated[bool, typer.Option(help="Start a worker when a client says hello.")] = True,
    nice: Annotated[
        int, typer.Option(min=0, max=19, help="How far compiles that nobody waits for stand back behind other work.")
    ] = 10,
    sandbox: Annotated[
        bool | None,
        typer.Option(
            "--require-sandbox/--no-sandbox",
            help="Do not start where workers cannot be confined; or do not confine them. "
            "[confined where the kernel can; COMPILER_DAEMON_SANDBOX]",
        ),
    ] = None,
    publish: Annotated[bool, typer.Option(help="Take artifacts that clients compiled.")] = True,
    reflection: Annotated[bool, typer.Option("--reflection", help="Serve gRPC reflection.")] = False,
    insecure_loopback: Annotated[
        bool, typer.Option("--insecure-loopback", help="Allow a plain TCP address on the loopback interface.")
    ] = False,
    page_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Serve the web page and metrics on this port of 127.0.0.1. [any that is free]"
        ),
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Serve the web page and metrics.")] = True,
    client_auth: Annotated[
        ClientAuth,
        typer.Option(help="What clients of a HOST:PORT address show over TLS; `compiler-daemon keys` makes either."),
    ] = "certificate",
    tier: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADDRESS",
            help="Share artifacts with other daemons: file:///DIR, s3://BUCKET/PREFIX or redis://HOST; may be given "
            "more than once. [none; COMPILER_DAEMON_TIER]",
        ),
    ] = None,
    tier_accept: Annotated[
        TierAccept, typer.Option(help="Take from there what workers have compiled, or also what trainers have.")
    ] = "any",
    farm: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Have graphs compiled by a Dask scheduler's workers: tls://HOST:PORT. [none; COMPILER_DAEMON_FARM]",
        ),
    ] = None,
    farm_wait: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which a graph that nobody there has begun is compiled here.")
    ] = 5.0,
    farm_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The farm's authority, in PEM. [COMPILER_DAEMON_FARM_CA]")
    ] = None,
    farm_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="This daemon's certificate for the farm, in PEM. [COMPILER_DAEMON_FARM_CERTIFICATE]"
        ),
    ] = None,
    farm_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The certificate's key, a file of mode 600. [COMPILER_DAEMON_FARM_KEY]"),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option("--detach", help="Serve in the background: return when calls are answered. Logs go into DIR/log."),
    ] = False,
    unless_running: Annotated[
        bool,
        typer.Option("--unless-running", help="With --detach: where a daemon answers already, that one will do."),
    ] = False,
    idle: Annotated[
        float | None,
        typer.Option(
            metavar="AGE", parser=age, help="End when nobody has used the daemon for so long: 30min, 12h. [never]"
        ),
    ] = None,
    first_worker: Annotated[
        str, typer.Option(metavar="PYTHON", help="Start a worker of this interpreter at once. [at the first hello]")
    ] = "",
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every call.")] = False,
) -> None:
    """Serve until stopped; prints `ready ADDRESS` when calls are answered.

    Example: compiler-daemon serve --detach --store-size 50GB
    """
    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)
    if unless_running and not detach:
        raise UsageError("--unless-running is for a daemon in the background: add --detach")
    if detach:
        from compiler_daemon.admin.life.detached import ensure_daemon, start_detached

        options = [one for one in sys.argv[2:] if one not in ("--detach", "--unless-running")]
        found = ensure_daemon(place, options).address if unless_running else start_detached(place.directory, options)
        print_result(f"ready {found}")
        return
    mode = sandbox_mode(os.environ, None if sandbox is None else "required" if sandbox else "off")
    pool = PoolConfig(
        wall_s=job_seconds,
        prewarm=prewarm,
        niceness=nice,
        sandbox=mode,
        variables=named_variables(os.environ),
        first_interpreter=first_worker,
    )
    if workers is not None:
        pool = replace(pool, max_workers=workers)
    if job_memory is not None:
        pool = replace(pool, memory_bytes=job_memory)
    from compiler_daemon.farm.address import farm_of
    from compiler_daemon.serve import become_daemon

    become_daemon(
        DaemonConfig(
            directory=place.directory,
            address=place.address or place.default_address,
            insecure_loopback=insecure_loopback,
            client_auth=client_auth,
            reflection=reflection,
            allow_publish=publish,
            store_max_bytes=store_size,
            page_port=(page_port or 0) if page else None,
            page_optional=page_port is None,
            drain_s=drain_seconds,
            idle_s=idle,
            pool=pool,
            tier=TierConfig(places=tier_places(tier or [], os.environ), accept=tier_accept),
            farm=farm_of(os.environ, address=farm, ca=farm_ca, certificate=farm_cert, key=farm_key, wait_s=farm_wait),
        ),
        verbose=verbose,
    )


@cli.command()
def status(
    directory: Directory = None,
    address: ListenAddress = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until a daemon answers.")] = False,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for that; then exit code 1.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Show what the daemon does now, with the compiles under way; exit code 1 where none runs.

    Example: compiler-daemon status --wait
    """
    from compiler_daemon.admin.connection import OperatorClient
    from compiler_daemon.admin.insight.calls import RunClient
    from compiler_daemon.admin.status.page import find_page

    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)
    if wait:
        from compiler_daemon.admin.life.detached import wait_for_daemon

        wait_for_daemon(place, timeout)
    with OperatorClient.of(place) as operator:
        state, flights, url = operator.status(), RunClient(operator).flights(), find_page(operator)
    if as_json:
        in_flight = [flight.document for flight in flights]
        print_result(json.dumps({**state.document, "in_flight": in_flight, "page": url}))
    else:
        from compiler_daemon.admin.status.view import print_status

        print_status(state, flights, url)


@cli.command()
def stop(
    directory: Directory = None,
    address: ListenAddress = None,
    wait: Annotated[bool, typer.Option(help="Return when the daemon has gone.")] = True,
    timeout: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for that; then exit code 1.")
    ] = 90.0,
    now: Annotated[bool, typer.Option("--now", help="Do not let running compiles end.")] = False,
) -> None:
    """Stop the daemon gracefully. None running is fine.

    Example: compiler-daemon stop --timeout 300
    """
    from compiler_daemon.admin.life.ending import end_daemon

    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)
    if said := end_daemon(place, now=now, wait_s=timeout if wait else 0.0):
        typer.echo(said, err=True)
