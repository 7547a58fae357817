"""`tier`: what is in a tier that daemons share, whether it can be believed, and what goes. No daemon is needed."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compile_wire.plain import plain
from compiler_daemon.cli.options import AsJson, Directory, ListenAddress, Tiers, byte_size, cli, print_result
from compiler_daemon.cli.usage import Verbs
from compiler_daemon.config import DaemonLocation, TierAccept
from compiler_daemon.errors import DaemonError, NothingNamedError, TierError, UsageError

if TYPE_CHECKING:
    from compiler_daemon.admin.answers import DaemonState
    from compiler_daemon.admin.tier.cleaning import Cleaned


tier = Verbs(
    help="Looks into a tier that daemons share, verifies it, cleans it.", no_args_is_help=True, rich_markup_mode=None
)
cli.add_typer(tier, name="tier")


@tier.command()
def status(
    named: Tiers = None, directory: Directory = None, address: ListenAddress = None, as_json: AsJson = False
) -> None:
    """Say how a running daemon fares with its tiers, and how much is in those that are named.

    Exit code 1 where one of these does not answer.

    Example: compiler-daemon tier status --tier file:///srv/compile-tier
    """
    from compiler_daemon.admin.tier.contents import contents, opened
    from compiler_daemon.admin.tier.listing import Summary, summary
    from compiler_daemon.tier.address import tier_places

    async def look() -> list[tuple[str, Summary | None, str]]:
        found: list[tuple[str, Summary | None, str]] = []
        async with opened(named or [], os.environ) as tiers:
            for one in tiers:
                try:
                    found.append((str(one.address), summary(await contents(one.engine)), ""))
                except TierError as error:
                    found.append((str(one.address), None, plain(str(error))))
        return found

    state, absent = _daemon(directory, address)
    found = asyncio.run(look()) if tier_places(named or [], os.environ) else []
    if not found and state is None:
        raise UsageError(f"{absent}; or name a tier: --tier file:///DIR (or s3://, redis://)")
    if as_json:
        tiers = [
            {"tier": name, "contents": asdict(known) if known else None, "error": error} for name, known, error in found
        ]
        in_use = list(state.document.get("tiers", ())) if state is not None else None
        print_result(json.dumps({"tiers": tiers, "daemon": in_use}))
    else:
        _print_status(state, absent, found)
    if any(error for _, _, error in found):
        raise typer.Exit(1)


@tier.command(name="ls")
def list_objects(
    named: Tiers = None,
    environment: Annotated[str, typer.Option(metavar="ID", help="Only of this environment.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the objects of a tier, oldest first, with what their headers say of themselves. Nothing is verified.

    Example: compiler-daemon tier ls --tier s3://bucket/compile
    """
    from compiler_daemon.admin.tier.contents import contents, opened
    from compiler_daemon.admin.tier.listing import Row, rows, summary
    from compiler_daemon.admin.tier.view import console, rows_table, summary_text
    from compiler_daemon.cli.terminal import counting

    async def look() -> list[tuple[str, list[Row], Any]]:
        found = []
        async with opened(named or [], os.environ) as tiers:
            for one in tiers:
                objects = [each for each in await contents(one.engine) if each.environment.startswith(environment)]
                with counting("reading headers") as progress:
                    read = await rows(one.engine, objects, progress)
                found.append((str(one.address), sorted(read, key=lambda row: -row.age_s), summary(objects)))
        return found

    found = asyncio.run(look())
    if as_json:
        tiers = [
            {"tier": name, "objects": [asdict(row) for row in listed], "summary": asdict(known)}
            for name, listed, known in found
        ]
        print_result(json.dumps({"tiers": tiers}))
        return
    for name, listed, known in found:
        if listed:
            console().print(rows_table(listed))
        print_result(f"{name}: {summary_text(known)}")


@tier.command()
def verify(
    named: Tiers = None,
    tier_accept: Annotated[
        TierAccept, typer.Option(help="As of `serve`: what workers have compiled, or also what trainers have.")
    ] = "any",
    directory: Directory = None,
    as_json: AsJson = False,
) -> None:
    """Read every object of a tier and say what this directory's daemon would: ok, or why it is a miss.

    Exit code 1 where one is of no use.

    Example: compiler-daemon tier verify --tier file:///srv/compile-tier
    """
    from compiler_daemon.admin.tier.contents import contents, opened
    from compiler_daemon.admin.tier.verify import Verdict, verdicts
    from compiler_daemon.admin.tier.view import console, verdicts_table, verdicts_text
    from compiler_daemon.cli.terminal import counting
    from compiler_daemon.tier.signer_files import SignerFiles

    place = DaemonLocation.resolve(os.environ, directory=directory, address=None)

    async def read() -> list[tuple[str, list[Verdict]]]:
        found = []
        trusted = SignerFiles(place.directory).read()
        async with opened(named or [], os.environ) as tiers:
            for one in tiers:
                objects = await contents(one.engine)
                with counting("verifying") as progress:
                    judged = await verdicts(one.engine, objects, trusted, tier_accept, progress)
                found.append((str(one.address), judged))
        return found

    found = asyncio.run(read())
    bad = sum(one.result != "ok" for _, judged in found for one in judged)
    if as_json:
        tiers = [{"tier": name, "objects": [asdict(one) for one in judged]} for name, judged in found]
        print_result(json.dumps({"tiers": tiers, "bad": bad}))
    else:
        for name, judged in found:
            if judged:
                console().print(verdicts_table(judged))
            print_result(f"{name}: {verdicts_text(judged)}")
    if bad:
        raise typer.Exit(1)


@tier.command(name="gc")
def collect(
    named: Tiers = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="What nobody has used for so long: 12h, 30d; units are s, min, h, d, w, y."),
    ] = None,
    max_size: Annotated[
        int | None,
        typer.Option(
            "--max-size",
            "--max-gib",
            metavar="SIZE",
            parser=byte_size,
            help="Then the oldest, down to this size: 100GB.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what nobody has used for long from a directory or a bucket, the oldest first; a Redis does so by itself.

    One node cleans at a time, so that every node may have this in its timetable. In a bucket an object is as old as
    its writing: buckets do not note when something is read.

    Example: compiler-daemon tier gc --tier file:///srv/compile-tier --older-than 30d --max-size 100GB
    """
    from compiler_daemon.admin.tier.cleaning import Rules, clean
    from compiler_daemon.admin.tier.contents import opened
    from compiler_daemon.admin.tier.view import cleaned_text
    from compiler_daemon.cli.terminal import counting
    from compiler_daemon.text import numbers

    try:
        older_than_s = numbers.parse_duration(older_than) if older_than is not None else None
    except ValueError as error:
        raise UsageError(str(error)) from error
    if older_than_s is None and max_size is None:
        raise UsageError("say what may go: --older-than 30d, --max-size 100GB, or both")
    rules = Rules(older_than_s=older_than_s, max_bytes=max_size)

    def on_waiting(host: str) -> None:
        typer.echo(f"{host} has the lease of cleaning: waiting for a sign of life, or that it runs out", err=True)

    async def clean_all() -> list[Cleaned]:
        done = []
        async with opened(named or [], os.environ) as tiers:
            for one in tiers:
                with counting("removing") as progress:
                    done.append(await clean(one, rules, dry_run=dry_run, progress=progress, on_waiting=on_waiting))
        return done

    done = asyncio.run(clean_all())
    if as_json:
        print_result(json.dumps({"tiers": [asdict(one) for one in done]}))
    else:
        for one in done:
            print_result(cleaned_text(one))


@tier.command(name="rm")
def remove(
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys as `tier ls` has them, or beginnings.")],
    named: Tiers = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove all artifacts of keys from a tier, in every environment; asks on a terminal.

    Daemons that have taken one keep it in their stores.

    Example: compiler-daemon tier rm 3fa9c0 --tier file:///srv/compile-tier
    """
    from compiler_daemon.admin.tier.cleaning import removed
    from compiler_daemon.admin.tier.contents import OpenTier, StoredObject, contents, opened
    from compiler_daemon.admin.tier.naming import named_objects
    from compiler_daemon.cli.terminal import counting, may_ask
    from compiler_daemon.text import numbers

    async def remove_all() -> list[tuple[str, list[StoredObject]]]:
        async with opened(named or [], os.environ) as tiers:
            going: list[tuple[OpenTier, list[StoredObject]]] = []
            unknown = set(keys)
            for one in tiers:
                with counting("reading headers") as progress:
                    meant = await named_objects(one.engine, await contents(one.engine), keys, progress)
                unknown -= {key for key, objects in meant.items() if objects}
                unique = {each.name: each for objects in meant.values() for each in objects}
                going.append((one, list(unique.values())))
            if unknown:
                raise NothingNamedError(sorted(unknown)[0], "tier ls")
            _confirm([each for _, objects in going for each in objects])
            for one, objects in going:
                with counting("removing") as progress:
                    await removed(one.engine, objects, progress)
            return [(str(one.address), objects) for one, objects in going]

    def _confirm(objects: list[StoredObject]) -> None:
        if yes:
            return
        what = numbers.counted(len(objects), "artifact")
        if not may_ask():
            raise UsageError(f"this removes {what}, and nobody is there to ask: add --yes")
        if not typer.confirm(f"Remove {what}, {numbers.size(sum(one.size for one in objects))}?", err=True):
            raise typer.Exit(1)

    done = asyncio.run(remove_all())
    if as_json:
        tiers = [
            {"tier": name, "removed": [one.name for one in gone], "bytes": sum(one.size for one in gone)}
            for name, gone in done
        ]
        print_result(json.dumps({"tiers": tiers}))
    else:
        for name, gone in done:
            size = numbers.size(sum(one.size for one in gone))
            print_result(f"{name}: removed {numbers.counted(len(gone), 'artifact')}, {size}")


def _daemon(directory: Path | None, address: str | None) -> tuple[DaemonState | None, str]:
    """Return a running daemon's state, or why there is none."""
    from compiler_daemon.admin.connection import OperatorClient

    try:
        with OperatorClient.of(DaemonLocation.resolve(os.environ, directory=directory, address=address)) as operator:
            return operator.status(), ""
    except DaemonError as error:
        return None, plain(str(error))


def _print_status(state: DaemonState | None, absent: str, found: list[tuple[str, Any, str]]) -> None:
    from rich.console import Console

    from compiler_daemon.admin.status.tiers import tiers_table
    from compiler_daemon.admin.tier.view import summary_text

    for name, known, error in found:
        print_result(f"{name}: {error or summary_text(known)}")
    if state is None:
        typer.echo(absent, err=True)
    elif state.tiers:
        Console().print(tiers_table(state.tiers))
    else:
        print_result("the daemon that runs shares nothing: `compiler-daemon serve --tier ADDRESS`")
