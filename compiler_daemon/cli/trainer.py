"""`run`: a trainer with a daemon, which is started where none is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from compile_wire.endpoint.address import UnixAddress
from compile_wire.endpoint.credentials import is_clients
from compile_wire.plain import plain
from compiler_daemon.cli.options import IDLE, Directory, Idle, ListenAddress, cli
from compiler_daemon.config import ADDRESS_VARIABLE, DIRECTORY_VARIABLE, DaemonLocation
from compiler_daemon.errors import DaemonError, UsageError

_CLIENT_VARIABLE = "TORCH_COMPILE_CLIENT"


@cli.command(
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    epilog="Example: compiler-daemon run -- python train.py --epochs 3",
)
def run(
    command: Annotated[list[str] | None, typer.Argument(metavar="COMMAND...", help="The trainer.")] = None,
    idle: Idle = IDLE,
    directory: Directory = None,
    address: ListenAddress = None,
) -> None:
    """Run a trainer with the client on; start a daemon in the background where none is there.

    The trainer takes this process's place. A daemon that was started for it serves others, too, and ends when nobody
    has used it for a while. Where none comes up, the trainer runs without.
    """
    if not command:
        raise UsageError("say what to run: compiler-daemon run -- python train.py")
    _check_runs(command[0])  # before a daemon starts for nothing
    place = DaemonLocation.resolve(os.environ, directory=directory, address=address)
    environ = {**os.environ, _CLIENT_VARIABLE: "1"}
    if directory is not None:
        environ[DIRECTORY_VARIABLE] = str(place.directory)
    if address is not None:
        environ[ADDRESS_VARIABLE] = address
    if _may_start(place):
        _ensure(place, command, idle)
    _become(command, environ)


def _may_start(place: DaemonLocation) -> bool:
    """Whether a daemon that is not there may be started: another machine's is another's to start."""
    return not is_clients(place.directory) and (place.address is None or isinstance(place.address, UnixAddress))


def _ensure(place: DaemonLocation, command: list[str], idle: float) -> None:
    from compile_wire.endpoint.presence import be_present
    from compiler_daemon.admin.life.detached import ensure_daemon, log_path
    from compiler_daemon.text import numbers

    options = ["--dir", str(place.directory), "--idle", f"{idle:g}s"]
    if place.address is not None:
        options += ["--address", str(place.address)]
    if interpreter := _interpreter(command):
        options += ["--first-worker", interpreter]
    try:
        found = ensure_daemon(place, options)
    except (DaemonError, OSError) as error:
        _say(f"no daemon: {error}. The trainer runs without")
        return
    be_present(place.directory, inherited=True)
    if found.started:
        _say(
            f"a daemon was started (process {found.pid}); it ends {numbers.seconds(idle)} after its last trainer, and "
            f"writes to {log_path(place.directory)}"
        )


def _interpreter(command: list[str]) -> str:
    """Return the Python that the command begins with, as it will call itself; empty where it begins otherwise."""
    import shutil

    found = shutil.which(command[0])
    return os.path.abspath(found) if found and Path(found).name.startswith("python") else ""


def _check_runs(program: str) -> None:
    """End as a shell would where there is no such program, or it is none."""
    import shutil

    if shutil.which(program) is None:
        if os.path.exists(program):
            _end_unrun(program, "Is a directory" if os.path.isdir(program) else "Permission denied", missing=False)
        _end_unrun(program, "No such file or directory", missing=True)


def _end_unrun(program: str, why: str, *, missing: bool) -> NoReturn:
    meant = f". Was this meant: compiler-daemon run -- python {program}" if program.endswith(".py") else ""
    _say(f"{program} cannot be run: {why}{meant}")
    raise SystemExit(127 if missing else 126)


def _become(command: list[str], environ: dict[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command[0], command, environ)  # noqa: S606  # what the user asked for, without a shell
    except OSError as error:
        _end_unrun(command[0], str(error.strerror), missing=isinstance(error, FileNotFoundError))


def _say(text: str) -> None:
    typer.echo(f"compiler-daemon: {plain(text)}", err=True)
