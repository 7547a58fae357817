"""`pin`, `unpin`, `rm`, `gc`: what stays and what goes. They change what is kept, and so need a running daemon."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from compiler_daemon.cli.completion import KeyArguments, complete_program
from compiler_daemon.cli.inventory import inventory_of
from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, byte_size, cli, print_result
from compiler_daemon.errors import NothingNamedError, UsageError

if TYPE_CHECKING:
    from compiler_daemon.admin.inventory.calls import InventoryClient
    from compiler_daemon.store import ArtifactRow


@cli.command()
def pin(
    keys: KeyArguments = None, directory: Directory = None, address: ListenAddress = None, as_json: AsJson = False
) -> None:
    """Keep artifacts permanently: neither age nor want of room removes them.

    Example: compiler-daemon pin 3fa9
    """
    with inventory_of(directory, address) as client:
        _pin(client, keys or [], pinned=True, as_json=as_json)


@cli.command()
def unpin(
    keys: KeyArguments = None, directory: Directory = None, address: ListenAddress = None, as_json: AsJson = False
) -> None:
    """Undo `pin`.

    Example: compiler-daemon unpin 3fa9
    """
    with inventory_of(directory, address) as client:
        _pin(client, keys or [], pinned=False, as_json=as_json)


@cli.command(name="rm")
def remove(
    keys: KeyArguments = None,
    everything: Annotated[bool, typer.Option("--all", help="Every artifact, pinned ones too.")] = False,
    program: Annotated[
        str, typer.Option(metavar="NAME", help="Every artifact of this program.", autocompletion=complete_program)
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: AsJson = False,
) -> None:
    """Remove artifacts, pinned or not; asks on a terminal. The graphs stay, for `replay`.

    The room of their blobs comes free with a collection, an hour later at most.

    Example: compiler-daemon rm 3fa9 --yes
    """
    from compiler_daemon.cli.terminal import may_ask
    from compiler_daemon.text import numbers

    if sum([bool(keys), bool(program), everything]) != 1:
        raise UsageError("say what to remove: keys, a --program, or --all")
    with inventory_of(directory, address) as client:
        rows = _named(client, keys) if keys else client.artifacts(program=program)
        if program and not rows:
            raise NothingNamedError(program)
        size = sum(row.bytes for row in rows)
        what = numbers.counted(len(rows), "artifact")
        if rows and not yes:
            if not may_ask():
                raise UsageError(f"this removes {what}, and nobody is there to ask: add --yes")
            if not typer.confirm(f"Remove {what}, {numbers.size(size)}?", err=True):
                raise typer.Exit(1)
        removed = client.remove([row.digest for row in rows])
    if as_json:
        print_result(json.dumps({"removed": removed, "bytes": size, "digests": [row.digest for row in rows]}))
    else:
        print_result(f"removed {numbers.counted(removed, 'artifact')}, {numbers.size(size)}")


@cli.command(name="gc")
def collect(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    max_size: Annotated[
        int | None,
        typer.Option(
            "--max-size",
            "--max-gib",
            metavar="SIZE",
            parser=byte_size,
            help="Go down to this size: 10GB. [90 % of the store's limit]",
        ),
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE", help="Also what nobody has used for so long: 12h, 30d; units are s, min, h, d, w, y."
        ),
    ] = None,
    directory: Directory = None,
    address: ListenAddress = None,
    as_json: AsJson = False,
) -> None:
    """Remove what belongs to nothing, then what is old, then the least recently used. Pins and what is in use stay.

    The daemon does this by itself; this is for making room now.

    Example: compiler-daemon gc --dry-run --older-than 30d
    """
    from compiler_daemon.admin.inventory.view import print_collected
    from compiler_daemon.text import numbers

    try:
        unused_s = numbers.parse_duration(older_than) if older_than is not None else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    with inventory_of(directory, address) as client:
        done = client.collect(dry_run=dry_run, max_bytes=max_size, unused_s=unused_s)
        kinds = {} if as_json else client.kinds(done.artifacts)
    if as_json:
        print_result(json.dumps({**asdict(done.report), "listed": [asdict(row) for row in done.artifacts]}))
    else:
        print_collected(done, kinds)


def _pin(client: InventoryClient, keys: list[str], *, pinned: bool, as_json: bool) -> None:
    if not keys:
        raise UsageError(f"say what to {'pin' if pinned else 'unpin'}: a key or an id, as `compiler-daemon ls` has it")
    rows = _named(client, keys)
    changed = client.set_pinned([row.digest for row in rows], pinned)
    if as_json:
        print_result(json.dumps({"pinned": pinned, "count": changed, "digests": [row.digest for row in rows]}))
    else:
        from compiler_daemon.text import numbers

        print_result(f"{'pinned' if pinned else 'unpinned'} {numbers.counted(changed, 'artifact')}")


def _named(client: InventoryClient, keys: list[str]) -> list[ArtifactRow]:
    """Return the artifacts of all names, once each; raises before anything is changed where one means nothing."""
    rows = {one.row.digest: one.row for key in keys for one in client.describe(key)[0]}
    return list(rows.values())
