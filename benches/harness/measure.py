"""What the speed benches share: trainers in fresh processes and folders, rows of medians, ratios, goals, the last line.

A row is one way to start the same trainer. All rows of a bench are run in turn, round after round, so that a machine
that is slow for a while is slow for all of them; what is compared are medians of one run, as ratios.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.table import Table

from benches.harness.daemon import clean_environment
from benches.harness.machine import machine
from benches.harness.output import last_line, write_document
from benches.harness.processes import start_child

_RUN_S = 900.0


class BenchError(Exception):
    """A bench cannot be run; the text says why."""


class TrainerFailedError(BenchError):
    """A trainer's process has ended with an error."""

    def __init__(self, text: str, last_line: str) -> None:
        super().__init__(f"{text}: {last_line}" if last_line else text)
        self.last_line = last_line


@dataclass(frozen=True, slots=True)
class CacheDirs:
    """Where one process, or several that share them, has its caches."""

    path: Path

    @classmethod
    def fresh(cls, path: Path) -> CacheDirs:
        """Return empty folders at `path`; what was there goes."""
        shutil.rmtree(path, ignore_errors=True)
        for name in ("inductor", "triton", "tmp"):
            (path / name).mkdir(parents=True)
        return cls(path)

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process use them. torch keeps precompiled headers in TMPDIR."""
        return {
            "TORCHINDUCTOR_CACHE_DIR": str(self.path / "inductor"),
            "TRITON_CACHE_DIR": str(self.path / "triton"),
            "TMPDIR": str(self.path / "tmp"),
        }


@dataclass(frozen=True, slots=True)
class TrainerResult:
    """One trainer's process, ended."""

    seconds: float
    """From its start to its end."""
    cpu_s: float
    """Of the process and all its children."""
    result: dict[str, Any]
    """The JSON document on its last line."""


class RunningTrainer:
    """One trainer's process, running. The trainer is told when it was started, for its own clock."""

    def __init__(self, command: Sequence[str], home: CacheDirs, log: Path | None = None, /, **environment: str) -> None:
        """Start it. What it says on stderr goes to the file `log`, or else where this process says it."""
        self._start = time.time()
        self._log = log
        with contextlib.ExitStack() as stack:
            self._process = start_child(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                stderr=None if log is None else stack.enter_context(log.open("wb")),
                env=clean_environment() | home.environment | {"BENCH_STARTED": repr(self._start)} | environment,
            )

    def end(self) -> TrainerResult:
        """Wait for it; raise `BenchError` where it took too long, `TrainerFailedError` where it failed."""
        try:
            out, _ = self._process.communicate(timeout=_RUN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise BenchError(f"a trainer ran for more than {_RUN_S:.0f} s") from None
        seconds = time.time() - self._start
        lines = out.decode().splitlines()
        if self._process.returncode or not lines:
            said = self._log.read_text(errors="replace") if self._log is not None else ""
            raise TrainerFailedError(f"a trainer ended with exit code {self._process.returncode}", _error(said))
        result: dict[str, Any] = json.loads(lines[-1])
        return TrainerResult(seconds, float(result.pop("cpu_s", 0.0)), result)


def _error(said: str) -> str:
    """Return the line of a traceback that says what went wrong; empty where there is none."""
    found = re.findall(r"^[\w.]*(?:Error|Exception|Unsupported)\b.*$", said, re.MULTILINE)
    return found[-1][:200] if found else ""


@dataclass(slots=True)
class Row:
    """The figures of one row, a list for each name: one value a round."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, figures: Mapping[str, float]) -> None:
        """Note one round."""
        for name, value in figures.items():
            self.values.setdefault(name, []).append(float(value))

    def median(self, name: str) -> float:
        """Return the middle value."""
        return statistics.median(self.values[name])

    def as_dict(self) -> dict[str, Any]:
        """Return medians, and for the seconds also the extremes."""
        figures: dict[str, Any] = {name: round(statistics.median(values), 4) for name, values in self.values.items()}
        if seconds := self.values.get("seconds"):
            figures |= {"seconds_min": round(min(seconds), 4), "seconds_max": round(max(seconds), 4)}
        return figures | {"rounds": max(map(len, self.values.values()), default=0)}


@dataclass(frozen=True, slots=True)
class Ratio:
    """A comparison of two rows, and what it should come to at most; None where nothing was promised."""

    above: str
    below: str
    goal: float | None = None
    figure: str = "seconds"

    @property
    def name(self) -> str:
        """As it stands in the document."""
        suffix = "" if self.figure == "seconds" else f":{self.figure}"
        return f"{self.above}/{self.below}{suffix}"

    def of(self, rows: Mapping[str, Row]) -> float | None:
        """Return it; None where one of the rows was not run."""
        if self.above not in rows or self.below not in rows:
            return None
        below = rows[self.below].median(self.figure)
        return round(rows[self.above].median(self.figure) / below, 4) if below else None


def arguments(name: str, text: str | None, rows: Sequence[str], *, rounds: int) -> argparse.ArgumentParser:
    """Return the options that every speed bench has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benches.{name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows",
        type=lambda given: _chosen(given, rows),
        default=list(rows),
        help=f"which rows to run, by commas (default all: {','.join(rows)})",
    )
    parser.add_argument("--rounds", type=int, default=rounds, help=f"how often each row is run (default {rounds})")
    parser.add_argument("--out", type=Path, help="also write the JSON document to this file; `-` is stdout")
    return parser


def finish(
    title: str,
    rows: Mapping[str, Row],
    ratios: Sequence[Ratio],
    out: Path | None,
    *,
    limits: Mapping[str, float] = MappingProxyType({}),
    show: Sequence[str] = (),
    added_to: Path | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Print the tables, write the document where asked, print it as the last line, and return it.

    `limits` are goals that are no ratios, by `row:figure`; `show` says which figures the table has, all by default.
    A document that is at `added_to` is written again with these rows added, or put in place of its own.
    """
    found = {ratio.name: ratio.of(rows) for ratio in ratios}
    limits = {name: limit for name, limit in limits.items() if name.partition(":")[0] in rows}
    document = {
        "bench": title,
        "machine": machine(),
        **more,
        "rows": {name: row.as_dict() for name, row in rows.items()},
        "ratios": {name: value for name, value in found.items() if value is not None},
        "goals": {ratio.name: ratio.goal for ratio in ratios if ratio.goal is not None},
        "limits": dict(limits),
    }
    console = Console(width=120)
    console.print(_rows_table(title, rows, show))
    console.print(_ratios_table(ratios, found, rows, limits))
    if added_to is not None and added_to.exists():
        document = _together(json.loads(added_to.read_text()), document)
    if out is not None:
        write_document(out, document)
    last_line(document)
    return document


def _together(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return a document with what both have. Raises `BenchError` where they are of two machines, or two torches."""
    if before["machine"] != now["machine"]:
        raise BenchError(f"the document is of another machine: {before['machine']}, and this is {now['machine']}")
    both = before | now
    for name, value in now.items():
        if name == "machine":
            continue
        if isinstance(value, dict):
            both[name] = before.get(name, {}) | value
        elif isinstance(value, list):
            both[name] = list(dict.fromkeys([*before.get(name, []), *value]))
    return both


def _chosen(given: str, rows: Sequence[str]) -> list[str]:
    names = [name for name in given.split(",") if name]
    if unknown := [name for name in names if name not in rows]:
        raise argparse.ArgumentTypeError(f"no row {', '.join(unknown)}; there are {', '.join(rows)}")
    return [name for name in rows if name in names]


def _rows_table(title: str, rows: Mapping[str, Row], show: Sequence[str]) -> Table:
    table = Table(title=f"{title}: medians", title_justify="left")
    table.add_column("row")
    there = dict.fromkeys(name for row in rows.values() for name in row.values)
    columns = [name for name in show if name in there] if show else list(there)
    for column in columns:
        table.add_column(column.replace("_", " "), justify="right")
    for name, row in rows.items():
        table.add_row(name, *(f"{row.median(column):.4g}" if column in row.values else "" for column in columns))
    return table


def _ratios_table(
    ratios: Sequence[Ratio], found: Mapping[str, float | None], rows: Mapping[str, Row], limits: Mapping[str, float]
) -> Table:
    table = Table(title="ratios and limits", title_justify="left")
    for column in ("what", "goal", "measured", ""):
        table.add_column(column, justify="left" if column == "what" else "right")
    measured = [(ratio.name, ratio.goal, found[ratio.name]) for ratio in ratios]
    for name, limit in limits.items():
        row, _, figure = name.partition(":")
        measured.append((name, limit, rows[row].median(figure)))
    for name, goal, value in measured:
        if value is not None:
            verdict = "" if goal is None else ("met" if value <= goal else "missed")
            table.add_row(name, "" if goal is None else f"≤ {goal:g}", f"{value:.3f}", verdict)
    return table
