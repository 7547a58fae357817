"""What goes wrong, for programs: with `--json` each failure is one object on stdout, and the sentence on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from compile_wire.plain import plain
from compiler_daemon.cli.options import PROGRAM, begin, has_printed, print_result
from compiler_daemon.errors import DaemonError, UsageError
from compiler_daemon.text.sentence import sentence

_SlipError: type[typer.BadParameter] = next(  # narrower than it is: what is read of it, both have
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""What typer raises where the command line is wrong; which package it is from differs between its versions."""


def asked_for_json(arguments: Sequence[str]) -> bool:
    """Whether the arguments ask for JSON; what stands behind `--` is another program's."""
    return "--json" in (list(arguments[: arguments.index("--")]) if "--" in arguments else arguments)


def run_for_json(cli: typer.Typer) -> NoReturn:
    """Run the command line and exit; where nothing was printed by then, say on stdout why."""
    begin()
    try:
        code = cli(prog_name=PROGRAM, standalone_mode=False) or 0
    except _SlipError as error:
        _fail("UsageError", error.format_message(), 2)
    except typer.Abort:
        _fail("Aborted", "nobody answered, and nothing was done", 1)
    except (DaemonError, OSError) as error:
        _fail(type(error).__name__, sentence(error), 2 if isinstance(error, UsageError) else 1)
    except KeyboardInterrupt:
        code = 130
    if code and not has_printed():
        _fail("Interrupted" if code == 130 else "Failed", "interrupted" if code == 130 else "see stderr", code)
    raise SystemExit(code)


def _fail(kind: str, message: str, code: int) -> NoReturn:
    print_result(json.dumps({"error": {"kind": kind, "message": plain(message), "exit_code": code}}))
    sys.stderr.write(f"{PROGRAM}: {plain(message)}\n")
    raise SystemExit(code)
