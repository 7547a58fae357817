"""`keys`: what TLS needs, made, recreated, handed out, listed, taken back. No verb prints a secret."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compiler_daemon.cli.options import AsJson, Directory, cli, path, print_result
from compiler_daemon.cli.usage import Verbs
from compiler_daemon.config import DaemonLocation
from compiler_daemon.errors import UsageError

if TYPE_CHECKING:
    from compiler_daemon.admin.keys.certificates import CertificateView
    from compiler_daemon.admin.keys.commands import Change, KeysView

keys = Verbs(
    help="Keys for clients on other machines: an authority, certificates, tokens; signers of a shared tier. "
    "The Unix socket needs none of it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
cli.add_typer(keys, name="keys")

Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="HOST", help="Name or number that clients use; again for more. localhost is in."),
]
Days = Annotated[int, typer.Option(min=1, max=3650, help="How long what is made is in force.")]
Overlap = Annotated[
    float, typer.Option(min=0, max=365, help="How long what was in force before stays so. 0 ends it at once.")
]


@keys.command()
def init(directory: Directory = None, host: Hosts = None, days: Days = 397, as_json: AsJson = False) -> None:
    """Make an authority and a server certificate; refuses where there are keys already.

    Example: compiler-daemon keys init --host gpu7.example.org --host 10.1.2.3
    """
    from compiler_daemon.admin.keys import commands as work

    say_change(work.init(keys_directory(directory), host or (), days=days), as_json=as_json)


@keys.command()
def rotate(
    directory: Directory = None,
    host: Hosts = None,
    token: Annotated[bool, typer.Option("--token", help="The daemon's own token, too.")] = False,
    secret: Annotated[
        bool, typer.Option("--secret", help="The signing secret, too; the daemon must be stopped.")
    ] = False,
    authority: Annotated[bool, typer.Option("--ca", help="The authority, too.")] = False,
    overlap_days: Overlap = 7.0,
    days: Days = 397,
    as_json: AsJson = False,
) -> None:
    """Make the server's certificate anew, and what else is named; says what it means for clients that run.

    Example: compiler-daemon keys rotate --ca --overlap-days 14
    """
    from compiler_daemon.admin.keys import commands as work

    change = work.rotate(
        keys_directory(directory),
        hosts=host or (),
        token=token,
        secret=secret,
        authority=authority,
        overlap_days=overlap_days,
        days=days,
    )
    say_change(change, as_json=as_json)


@keys.command()
def client(
    name: Annotated[str, typer.Argument(help="What this client is called in the log and in `keys show`.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", parser=path, help="An empty or new directory for the client's keys.")
    ],
    directory: Directory = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="It may look up, read and have graphs compiled, and not publish.")
    ] = False,
    operator: Annotated[
        bool, typer.Option("--operator", help="It may do everything, stop the daemon as well.")
    ] = False,
    token: Annotated[
        bool, typer.Option("--token", help="A token in place of a certificate, for `serve --client-auth token`.")
    ] = False,
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the daemon listens, written along.")] = "",
    renew: Annotated[bool, typer.Option("--renew", help="Make the keys of a client anew that is in force.")] = False,
    overlap_days: Overlap = 7.0,
    days: Days = 397,
    as_json: AsJson = False,
) -> None:
    """Fill a directory with what one client needs; it goes to the other machine, and COMPILER_DAEMON_DIR names it.

    Example: compiler-daemon keys client alice --out alice-keys --address gpu7.example.org:7443
    """
    from compile_wire.endpoint.address import TcpAddress
    from compiler_daemon.admin.keys import commands as work
    from compiler_daemon.endpoint import read_address

    if read_only and operator:
        raise UsageError("a client is either --read-only or --operator")
    if address and not isinstance(read_address(address), TcpAddress):
        raise UsageError(f"{address!r} is no HOST:PORT: a client on another machine needs one")
    change = work.make_client(
        keys_directory(directory),
        name,
        Path(os.path.abspath(out)),
        role="reader" if read_only else "operator" if operator else "trainer",
        kind="token" if token else "certificate",
        address=address,
        days=days,
        renew=renew,
        overlap_days=overlap_days,
    )
    say_change(change, as_json=as_json)


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="The client, as `keys show` names it.")],
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Take back a client's keys; the daemon refuses its next call.

    Example: compiler-daemon keys revoke alice
    """
    from compiler_daemon.admin.keys import commands as work

    say_change(work.revoke(keys_directory(directory), name), as_json=as_json)


@keys.command()
def show(directory: Directory = None, as_json: AsJson = False) -> None:
    """List the keys with fingerprints, names and ends; never a secret.

    Example: compiler-daemon keys show --json
    """
    from compiler_daemon.admin.keys import commands as work

    view = work.show(keys_directory(directory))
    if as_json:
        now = time.time()
        clients = [{**asdict(client), "state": client.state(now)} for client in view.clients]
        print_result(json.dumps({**asdict(view), "clients": clients}))
    else:
        _print_tables(view)


def keys_directory(argument: Path | None) -> Path:
    """Return the directory whose keys are meant."""
    return DaemonLocation.resolve(os.environ, directory=argument, address=None).directory


def say_change(change: Change, *, as_json: bool) -> None:
    """Print what was done, and what it means for those who run meanwhile."""
    if as_json:
        print_result(json.dumps(asdict(change)))
        return
    for text in change.done:
        print_result(text)
    for text in change.meanwhile:
        typer.echo(f"meanwhile: {text}", err=True)


def _print_tables(view: KeysView) -> None:
    from rich.console import Console
    from rich.table import Table

    if view.authority is None:
        typer.echo("there are no keys for TLS: `compiler-daemon keys init --host NAME` makes them", err=True)
    now = time.time()
    certificates = Table("certificate", "subject", "SHA-256", "hosts", "ends", title=view.directory)
    _row(certificates, "authority", view.authority)
    _row(certificates, "authority before", view.previous_authority)
    _row(certificates, "server", view.server)
    clients = Table("client", "role", "kind", "SHA-256", "state", "ends")
    for client in view.clients:
        clients.add_row(
            client.name, client.role, client.kind, client.sha256[:16], client.state(now), _day(client.expires)
        )
    console = Console(soft_wrap=True)
    console.print(certificates)
    console.print(clients)
    if view.previous_token_until > now:
        console.print(f"the token before the last rotation is in force until {_day(view.previous_token_until)}")


def _row(table: object, what: str, seen: CertificateView | None) -> None:
    from rich.table import Table

    if seen is not None and isinstance(table, Table):
        table.add_row(what, seen.subject, seen.sha256[:16], ", ".join(seen.hosts), _day(seen.not_after))


def _day(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(moment))
