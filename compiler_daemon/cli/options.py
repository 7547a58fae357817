"""What the verbs share: the application, options of the same meaning, how results and failures are said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from compile_wire.plain import plain
from compiler_daemon.cli.day import InTheOrderOfADay
from compiler_daemon.cli.settings_file import read_settings
from compiler_daemon.cli.usage import Verbs
from compiler_daemon.text import numbers
from compiler_daemon.text.sentence import sentence


def path(text: str) -> Path:
    """Return the path of an option; without a name it would be the current directory."""
    if not text.strip():
        raise typer.BadParameter("it is empty: name one, or leave the option out")
    return Path(text)


def age(text: str) -> float:
    """Return the seconds of a stretch of time, as `30min` or `12h`."""
    try:
        return numbers.parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def byte_size(text: str) -> int:
    """Return the bytes of a size, as `20GB`."""
    try:
        return numbers.parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def some_bytes(text: str) -> int:
    """Return the bytes of a size that is not nothing."""
    if not (found := byte_size(text)):
        raise typer.BadParameter("it must be more than nothing: write it as 20GB")
    return found


Directory = Annotated[
    Path | None,
    typer.Option(
        "--dir", metavar="DIR", parser=path, help="The daemon's directory. [COMPILER_DAEMON_DIR, else the user's cache]"
    ),
]
ListenAddress = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="unix:PATH or HOST:PORT. [COMPILER_DAEMON_ADDRESS, else a socket in DIR]"),
]
Tiers = Annotated[
    list[str] | None,
    typer.Option(
        "--tier",
        metavar="ADDRESS",
        help="file:///DIR, s3://BUCKET/PREFIX or redis://HOST; may be given more than once. [COMPILER_DAEMON_TIER]",
    ),
]
Idle = Annotated[
    float,
    typer.Option(
        "--idle", metavar="AGE", parser=age, help="A daemon that is started ends when nobody has used it for so long."
    ),
]
IDLE: Any = "1h"
"""As it is typed: the library reads a default in the same way."""
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

cli = Verbs(
    cls=InTheOrderOfADay,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # What stands in brackets in a help text would be taken for markup, and left out; boxes leave no room at 80 columns.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from compiler_daemon import __version__

        print_result(f"compiler-daemon {__version__}")
        raise typer.Exit


@cli.callback()
def main(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A compile daemon for torch: each graph compiled once, verified, and served to every trainer."""
    # `config` says itself what is wrong with the file, and help is for those who are about to mend it.
    if not {"-h", "--help"}.intersection(sys.argv):
        verbs: dict[str, Any] = getattr(ctx.command, "commands", {})
        ctx.default_map = read_settings(os.environ, verbs)


PROGRAM = "compiler-daemon"
_printed = [False]


def print_result(text: str) -> None:
    """Print a result on stdout, at once."""
    _printed[0] = True
    typer.echo(text)
    sys.stdout.flush()


def begin() -> None:
    """Forget what an earlier command line of this process has printed."""
    _printed[0] = False


def has_printed() -> bool:
    """Whether a result has gone to stdout."""
    return _printed[0]


def fail(error: Exception, *, code: int = 1) -> NoReturn:
    """Say what went wrong in one sentence on stderr, and exit."""
    typer.echo(f"{PROGRAM}: {plain(sentence(error))}", err=True)
    raise SystemExit(code)
