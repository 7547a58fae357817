"""`config`: every setting of `serve` as it would hold now, and where it comes from."""

from __future__ import annotations

import json
import os
from typing import Any

import typer

from compile_wire.plain import plain
from compiler_daemon.cli.options import AsJson, Directory, cli, print_result
from compiler_daemon.cli.settings_file import VARIABLES, read_settings, settings_path
from compiler_daemon.config import DaemonLocation

_HELD_BACK = frozenset({"help", "detach", "unless_running", "verbose"})
"""Of one start alone, and not of a daemon."""


@cli.command()
def config(directory: Directory = None, as_json: AsJson = False) -> None:
    """Show every setting of `serve`, and where each comes from: a variable, the file of settings, or the default.

    The file is ~/.config/compiler-daemon/config.toml, or what COMPILER_DAEMON_CONFIG names.
    """
    from rich.console import Console
    from rich.table import Table

    path = settings_path(os.environ)
    rows = _rows(
        directory is not None, DaemonLocation.resolve(os.environ, directory=directory, address=None), str(path)
    )
    if as_json:
        settings = [{"name": name, "value": value, "from": source} for name, value, source in rows]
        print_result(json.dumps({"file": str(path), "exists": path.is_file(), "settings": settings}))
        return
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    table.columns[1].overflow = table.columns[2].overflow = "fold"
    for name, value, source in rows:
        table.add_row(name, plain(value), source)
    Console(highlight=False, markup=False).print(table)
    print_result(f"file: {path}{'' if path.is_file() else ' (there is none)'}")


def _rows(is_option: bool, place: DaemonLocation, file: str) -> list[tuple[str, str, str]]:
    """Return name, value and source of each setting."""
    verbs: dict[str, Any] = typer.main.get_command(cli).commands  # type: ignore[attr-defined]  # it is a group
    stated = read_settings(os.environ, verbs).get("serve", {})
    address = str(place.address or place.default_address)
    rows = [
        ("dir", str(place.directory), "--dir" if is_option else _variable("directory") or "default"),
        ("address", address, _variable("address") or "default"),
    ]
    for param in verbs["serve"].params:
        if param.name in _HELD_BACK or param.name in ("directory", "address"):
            continue
        name = str(param.name).replace("_", "-")
        if variable := _variable(param.name):
            rows.append((name, _hidden(os.environ[variable]), variable))
        elif param.name in stated:
            rows.append((name, _hidden(_text(stated[param.name])), file))
        else:
            rows.append((name, _text(param.default) if param.default is not None else _told(param.help), "default"))
    return rows


def _variable(name: str) -> str:
    """Return the variable that says a setting; empty where none does."""
    variable = VARIABLES.get(name, "")
    return variable if os.environ.get(variable) else ""


def _told(text: str | None) -> str:
    """Return what the help says of a setting without a value, in brackets at its end."""
    told = (text or "").rstrip("]").rpartition("[")[2] if (text or "").endswith("]") else ""
    return "none" if told.startswith("COMPILER_DAEMON") else told.partition(";")[0]


def _text(value: Any) -> str:
    return (
        " ".join(map(str, value))
        if isinstance(value, list | tuple)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )


def _hidden(text: str) -> str:
    """Return a value without the passwords that addresses may have."""
    from compiler_daemon.tier.address import masked

    return " ".join(masked(part) if "://" in part else part for part in text.split(" "))
