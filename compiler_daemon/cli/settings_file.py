"""The file of settings: what stands in it counts where neither an option nor a variable says otherwise.

A table for each verb, with the names of its options: `[serve]`, `store-size = "50GB"`. Directory and address are not in
it: trainers need them too, and read variables alone.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compiler_daemon.config import CONFIG_VARIABLE, SANDBOX_VARIABLE
from compiler_daemon.errors import UsageError
from compiler_daemon.farm.address import FARM_VARIABLE
from compiler_daemon.tier.address import TIER_VARIABLE

Settings = dict[str, dict[str, Any]]
"""For each verb, for each of its options by the name that the code gives it, what the file says."""

VARIABLES = {
    "directory": "COMPILER_DAEMON_DIR",
    "address": "COMPILER_DAEMON_ADDRESS",
    "tier": TIER_VARIABLE,
    "sandbox": SANDBOX_VARIABLE,
    "farm": FARM_VARIABLE,
    "farm_ca": f"{FARM_VARIABLE}_CA",
    "farm_cert": f"{FARM_VARIABLE}_CERTIFICATE",
    "farm_key": f"{FARM_VARIABLE}_KEY",
}
"""Options that a variable says, too; it counts more than the file."""

_OF_ONE_START = frozenset({"detach", "unless_running"})
"""A daemon in the background reads the file, too, and would start another one."""
_TRAINERS_TOO = frozenset({"dir", "directory", "address"})


def settings_path(environ: Mapping[str, str]) -> Path:
    """Return where the file is, or would be."""
    if named := environ.get(CONFIG_VARIABLE):
        return Path(os.path.abspath(Path(named).expanduser()))
    home = environ.get("XDG_CONFIG_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".config") / "compiler-daemon" / "config.toml"


def read_settings(environ: Mapping[str, str], verbs: Mapping[str, Any]) -> Settings:
    """Return what the file says, less what a variable says; nothing where there is no file.

    Raises `UsageError` where it is not TOML, or names no verb or option.
    """
    path = settings_path(environ)
    try:
        document = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if environ.get(CONFIG_VARIABLE):
            raise UsageError(f"{CONFIG_VARIABLE} names {path}, and there is no such file") from None
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    return {name: _table(path, name, table, verbs, environ) for name, table in document.items()}


def _table(path: Path, name: str, table: Any, verbs: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    verb = verbs.get(name)
    if verb is None or hasattr(verb, "commands"):
        raise UsageError(f"{path}: {name[:40]!r} is no verb with options{_meant(name, verbs)}")
    if not isinstance(table, dict):
        raise UsageError(f"{path}: {name} is a table: write [{name}], and its options below")
    params = [one for one in verb.params if one.param_type_name == "option" and one.name not in _OF_ONE_START]
    known = {_written(param): param.name for param in params}
    found: dict[str, Any] = {}
    for option, value in table.items():
        if option in _TRAINERS_TOO:
            raise UsageError(
                f"{path}: {option} cannot be set here, since trainers would not know of it: set "
                f"{VARIABLES['address' if option == 'address' else 'directory']} for both"
            )
        if option not in known:
            raise UsageError(f"{path}: {name} has no option {option[:40]!r}{_meant(option, known)}")
        if environ.get(VARIABLES.get(known[option], "")):
            continue
        found[known[option]] = _value(path, option, value)
    return found


def _value(path: Path, option: str, value: Any) -> Any:
    """Return a value as the command line would bring it."""
    if isinstance(value, bool):
        return value
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return value
    if isinstance(value, str | int | float):
        return str(value)
    raise UsageError(f"{path}: {option} is a text, a number, true or false, or a list of texts")


def _written(param: Any) -> str:
    return str(param.name).replace("_", "-")


def _meant(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, [*known], 1)
    return f": is {near[0]} meant?" if near else ""
