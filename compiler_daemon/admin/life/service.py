"""A user unit of systemd: written for this interpreter and directory, begun, ended and removed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from compiler_daemon.config import CONFIG_VARIABLE, DIRECTORY_VARIABLE
from compiler_daemon.errors import DaemonError

UNIT = "compiler-daemon.service"
_MADE_BY = "# Made by `compiler-daemon service install`, which writes it anew; `service uninstall` removes it.\n"
_CALL_S = 100.0
"""A stop waits for running compiles."""


def unit_text(environ: Mapping[str, str], directory: Path | None) -> str:
    """Return the package's unit with this interpreter, and with the variables that decide which daemon it is."""
    lines = []
    for line in resources.files("compiler_daemon.admin.life").joinpath(UNIT).read_text().splitlines():
        if line.startswith("ExecStart="):
            lines.append(f"ExecStart={_quoted(sys.executable)} -m compiler_daemon serve")
        elif line.startswith("#Environment="):
            named = {name: environ[name] for name in (DIRECTORY_VARIABLE, CONFIG_VARIABLE) if environ.get(name)}
            if directory is not None:
                named[DIRECTORY_VARIABLE] = str(directory)
            lines += [f"Environment={_quoted(f'{name}={value}')}" for name, value in named.items()]
        elif not line.startswith("# Change this"):
            lines.append(line)
    return _MADE_BY + "\n".join(lines) + "\n"


def unit_path(environ: Mapping[str, str]) -> Path:
    """Return where systemd looks for the user's units."""
    home = environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".config") / "systemd" / "user" / UNIT


def install(environ: Mapping[str, str], directory: Path | None) -> Path:
    """Write the unit, and have systemd start it now and at every login; return its path.

    Raises `DaemonError` where the unit is somebody else's, or systemd does not start it.
    """
    path = unit_path(environ)
    _check_ours(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(unit_text(environ, directory))
    _systemctl("daemon-reload", written=path)
    _systemctl("enable", "--now", UNIT, written=path)
    return path


def uninstall(environ: Mapping[str, str]) -> Path | None:
    """Have systemd stop the daemon, and remove the unit; return where it was, or None where there was none."""
    path = unit_path(environ)
    if not path.exists():
        return None
    _check_ours(path)
    _systemctl("disable", "--now", UNIT, written=path)
    path.unlink()
    _systemctl("daemon-reload", written=path)
    return path


def _check_ours(path: Path) -> None:
    if path.exists() and not path.read_text().startswith(_MADE_BY):
        raise DaemonError(f"{path} was not made by `compiler-daemon service install`: move it out of the way first")


def _systemctl(*arguments: str, written: Path) -> None:
    command = ["systemctl", "--user", *arguments]
    if shutil.which(command[0]) is None:
        raise DaemonError(
            f"there is no systemctl here; the unit is {written}: `{' '.join(command)}` where there is one"
        )
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_CALL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DaemonError(f"`{' '.join(command)}` did not end well: {error}") from error
    if done.returncode:
        said = [f"exit code {done.returncode}", *done.stderr.strip().splitlines()][-1]
        raise DaemonError(f"`{' '.join(command)}` failed: {said}. The unit is {written}")


def _quoted(text: str) -> str:
    """Return a word as systemd reads it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if any(mark in text for mark in " \t\"'\\") else escaped
