"""Which cells a sweep has: a command with the values of a matrix put into it; from the command line or a TOML file.

    [sweep]
    command = "python -m benches.multires --preset demo --resolutions {resolution} --steps 1 --out {scratch}"
    [matrix]
    resolution = [16, 32, 64]

Several sweeps are `[[sweep]]` tables with a `matrix` each. `{scratch}` is a folder of the cell's own that goes with it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compiler_daemon.errors import UsageError

SCRATCH = "scratch"

_MAX_CELLS = 10_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PLACES = re.compile(rf"\{{\{{(?P<twice>{_NAME.pattern})\}}\}}|(?<!\$)\{{(?P<once>{_NAME.pattern})\}}")
"""Where a value goes; in braces twice, its own name in braces. What has a dollar sign before it is a shell's."""
_SWEEP_KEYS = {"name", "command", "matrix", "environment", "directory"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One run of the trainer."""

    sweep: str
    values: tuple[tuple[str, str], ...]
    command: tuple[str, ...]
    """With the values in place; `{scratch}` still stands for itself."""
    environment: tuple[tuple[str, str], ...] = ()
    directory: str = ""
    """Where it runs; empty is here."""

    @property
    def label(self) -> str:
        """What people call it."""
        values = " ".join(f"{name}={value}" for name, value in self.values)
        return " ".join(part for part in (self.sweep, values) if part) or shlex.join(self.command)

    @property
    def digest(self) -> str:
        """Names the command with everything that was put into it."""
        parts = [self.command, self.environment, self.directory]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def from_options(command: Sequence[str], matrix: Sequence[str]) -> list[Cell]:
    """Return the cells of one command; `matrix` has `name=value,value` each. Raises `UsageError`."""
    axes: dict[str, list[str]] = {}
    for text in matrix:
        name, equals, values = text.partition("=")
        if not equals or not values:
            raise UsageError(f"--matrix is NAME=VALUE,VALUE, not {text!r}")
        if name in axes:
            raise UsageError(f"--matrix names {name} twice: give it all its values at once")
        axes[name] = values.split(",")
    return _cells("", list(command), axes, {}, "")


def from_manifest(path: Path) -> list[Cell]:
    """Return the cells of a manifest's sweeps, in their order. Raises `UsageError` naming what is wrong."""
    try:
        document = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be read as TOML: {error}") from error
    if unknown := set(document) - {"sweep", "matrix"}:
        raise UsageError(f"{path} has {', '.join(sorted(unknown))}: a manifest has [sweep] and [matrix]")
    sweeps = document.get("sweep")
    if isinstance(sweeps, dict):
        sweeps = [{"matrix": document.get("matrix", {}), **sweeps}]
    elif "matrix" in document:
        raise UsageError(f"{path}: with several sweeps, each has a matrix of its own ([sweep.matrix] below [[sweep]])")
    if not isinstance(sweeps, list) or not sweeps:
        raise UsageError(f"{path} has no [sweep]")
    cells = [cell for sweep in sweeps for cell in _of_table(path, sweep)]
    return list({cell.digest: cell for cell in cells}.values())  # what two sweeps share is run once


def _of_table(path: Path, sweep: Any) -> list[Cell]:
    if not isinstance(sweep, dict) or set(sweep) - _SWEEP_KEYS or "command" not in sweep:
        raise UsageError(f"{path}: a sweep has a command, and may have {', '.join(sorted(_SWEEP_KEYS - {'command'}))}")
    command = sweep["command"]
    words = shlex.split(command) if isinstance(command, str) else command
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError(f"{path}: a command is text or a list of texts")
    matrix, environment = sweep.get("matrix", {}), sweep.get("environment", {})
    if not isinstance(matrix, dict) or not all(isinstance(values, list) and values for values in matrix.values()):
        raise UsageError(f"{path}: a matrix gives each name a list of values")
    if not isinstance(environment, dict):
        raise UsageError(f"{path}: an environment gives each variable a value")
    directory = str(sweep.get("directory", ""))
    return _cells(
        str(sweep.get("name", "")),
        words,
        {name: [_text(path, value) for value in values] for name, values in matrix.items()},
        {name: _text(path, value) for name, value in environment.items()},
        str((path.parent / directory).absolute()) if directory else "",
    )


def _text(path: Path, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (str, int, float)):
        raise UsageError(f"{path}: a value is a word, a number or a flag, not {value!r}")
    return str(value)


def _cells(
    sweep: str, command: list[str], axes: Mapping[str, list[str]], environment: Mapping[str, str], directory: str
) -> list[Cell]:
    if not command:
        raise UsageError("there is no command: write it behind `--`, as in `warm --matrix size=1,2 -- python train.py`")
    for name, values in axes.items():
        if not _NAME.fullmatch(name) or name == SCRATCH:
            raise UsageError(f"a matrix cannot have the name {name!r}")
        if not any(name in _names(text) for text in (*command, *environment.values())):
            raise UsageError(f"the command has no {{{name}}}: all its cells would be the same")
        if len(set(values)) != len(values):
            raise UsageError(f"{name} has a value twice: {', '.join(values)}")
    for text in (*command, *environment.values()):
        for name in _names(text):
            if name not in axes and name != SCRATCH:
                raise UsageError(
                    f"nothing says what {{{name}}} in the command is: add --matrix {name}=VALUE,... (or, in a "
                    f"manifest, a line in its matrix), or write {{{{{name}}}}} where the trainer is to see {{{name}}}"
                )
    combinations = list(itertools.islice(itertools.product(*axes.values()), _MAX_CELLS + 1))
    if len(combinations) > _MAX_CELLS:
        raise UsageError(f"more than {_MAX_CELLS} cells: split the sweep")
    return [
        Cell(
            sweep=sweep,
            values=(chosen := tuple(zip(axes, combination, strict=True))),
            command=tuple(_filled(word, chosen) for word in command),
            environment=tuple((name, _filled(text, chosen)) for name, text in environment.items()),
            directory=directory,
        )
        for combination in combinations
    ]


def _names(text: str) -> list[str]:
    return [match["once"] for match in _PLACES.finditer(text) if match["once"]]


def _filled(word: str, values: Sequence[tuple[str, str]]) -> str:
    chosen = dict(values)

    def fill(match: re.Match[str]) -> str:
        if match["twice"]:
            return f"{{{match['twice']}}}"
        return chosen.get(match["once"], match[0])

    return _PLACES.sub(fill, word)
