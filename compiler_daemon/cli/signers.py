"""`keys signer`, `trust`, `signers`, `distrust`: who signs for a tier that daemons share, and who is believed."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from compiler_daemon.cli.keys import keys, keys_directory, say_change
from compiler_daemon.cli.options import AsJson, Directory, print_result
from compiler_daemon.cli.usage import Verbs

if TYPE_CHECKING:
    from compiler_daemon.admin.keys.signers import SignersView

signer = Verbs(help="The key with which this daemon signs for a tier.", no_args_is_help=True, rich_markup_mode=None)
keys.add_typer(signer, name="signer")


@signer.callback()
def _signer() -> None:
    """Keep `init` a verb of its own: a group of one command would be that command."""


@signer.command("init")
def signer_init(
    name: Annotated[str, typer.Argument(help="What the key is called, with a number that grows: lab-1.")],
    directory: Directory = None,
    renew: Annotated[
        bool, typer.Option("--replace", help="Make a new key where there is one; its name is another.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the key that this directory signs with, and print the public line that others trust.

    Example: compiler-daemon keys signer init lab-1
    """
    from compiler_daemon.admin.keys import signers as work

    made = work.init(keys_directory(directory), name, renew=renew)
    if as_json:
        print_result(json.dumps(asdict(made)))
        return
    print_result(made.line)
    for text in made.next:
        typer.echo(f"next: {text}", err=True)


@keys.command()
def trust(
    line: Annotated[str, typer.Argument(metavar="NAME:BASE64", help="The line that `keys signer init` printed there.")],
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Use what another daemon signs for the tier; a running daemon does so at once.

    Example: compiler-daemon keys trust lab-1:h8cS888ZF/LpM4QjKNyXGxL64Jf22sZ7GwfZjdvUpHo=
    """
    from compiler_daemon.admin.keys import signers as work

    say_change(work.trust(keys_directory(directory), line), as_json=as_json)


@keys.command()
def distrust(
    name: Annotated[str, typer.Argument(help="The signer, as `keys signers` names it.")],
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Use nothing more that a signer signed; a running daemon does so at once.

    Example: compiler-daemon keys distrust lab-1
    """
    from compiler_daemon.admin.keys import signers as work

    say_change(work.distrust(keys_directory(directory), name), as_json=as_json)


@keys.command("signers")
def list_signers(directory: Directory = None, as_json: AsJson = False) -> None:
    """List this directory's own key and those that it trusts, or trusts no more; never a private key.

    Example: compiler-daemon keys signers --json
    """
    from compiler_daemon.admin.keys import signers as work

    view = work.show(keys_directory(directory))
    if as_json:
        print_result(json.dumps(asdict(view)))
    else:
        _print_list(view)


def _print_list(view: SignersView) -> None:
    """Print a line each, not a table: public lines are there to be copied whole."""
    if not any(one.state == "own" for one in view.signers):
        typer.echo("this directory signs nothing: `compiler-daemon keys signer init NAME` makes a key", err=True)
    width = max((len(one.line) for one in view.signers), default=0)
    for one in view.signers:
        since = f"since {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(one.since))}" if one.since else ""
        print_result(f"{one.line:{width}}  {one.state:10}  {since}".rstrip())
