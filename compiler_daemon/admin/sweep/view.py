"""A warm-up as people see it: a progress bar while it runs, a table when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from compiler_daemon.admin.sweep.cell import CellResult
from compiler_daemon.admin.sweep.runner import SweepProgress
from compiler_daemon.text import numbers


class Watcher:
    """Shows how far a warm-up is, on standard error."""

    def __init__(self, bar: Bar, console: Console) -> None:
        self._bar = bar
        self._console = console
        self._task = bar.add_task("", total=None, left="", doing="")

    def change(self, progress: SweepProgress) -> None:
        """Show where it stands."""
        left = "" if progress.left_s is None else f"about {numbers.seconds(progress.left_s)} left"
        doing = ", ".join(progress.running[:3]) + (" ..." if len(progress.running) > 3 else "")
        if progress.load.compiles:
            doing += f"; {progress.load.compiles} compiles under way or waiting"
        self._bar.update(
            self._task, completed=progress.done, total=progress.total, left=left, doing=escape(doing), refresh=False
        )

    def result(self, result: CellResult) -> None:
        """Say that a cell has ended."""
        self._console.print(f"[bold]{escape(result.cell.label)}[/bold]: {escape(summary(result))}", soft_wrap=True)


@contextmanager
def watching() -> Iterator[Watcher]:
    """Show progress while the block lasts; where standard error is no terminal, only a line for each cell."""
    console = Console(stderr=True)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.fields[doing]}"),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        yield Watcher(bar, console)


def summary(result: CellResult) -> str:
    """Return the outcome of a cell, in a line."""
    if result.skipped:
        return "done before, and stored still"
    parts = [f"{numbers.counted(result.graphs, 'graph')} in {numbers.seconds(result.seconds)}"]
    texts = {
        "there": "already there",
        "compiled": "compiled",
        "elsewhere": "compiled on other nodes",
        "here": "compiled by the trainer",
        "refused": "refused",
    }
    parts += [f"{count} {text}" for outcome, text in texts.items() if (count := result.count(outcome))]
    if result.failure:
        parts.append(f"failed: {result.failure}")
    elif not result.graphs:
        parts.append("no graph reached the client: does it call torch.compile, with this package installed?")
    return ", ".join(parts)


def print_table(results: Sequence[CellResult]) -> None:
    """Print a line for each cell; what other nodes have compiled has a column where there is some."""
    fleet = any(result.count("elsewhere") for result in results)
    others = ("other nodes",) if fleet else ()
    table = Table("cell", "graphs", "already there", "compiled", *others, "by the trainer", "refused", "took", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for result in results:
        table.add_row(escape(result.cell.label), *_cells(result, fleet=fleet))
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table)


def as_document(result: CellResult) -> dict[str, Any]:
    """Return a cell's result as JSON has it."""
    return {
        "cell": result.cell.label,
        "values": dict(result.cell.values),
        "status": "failed" if result.failure else "skipped" if result.skipped else "done",
        "failure": result.failure,
        "graphs": result.graphs,
        "already_there": result.count("there", "local"),
        "compiled": result.count("compiled"),
        "on_other_nodes": result.count("elsewhere"),
        "compiled_here": result.count("here"),
        "refused": [{"key": row.key, "why": row.why} for row in result.refused],
        "published": result.published_here,
        "seconds": round(result.seconds, 3),
        "compile_seconds": round(sum(row.seconds for row in result.rows if row.outcome == "compiled"), 3),
        "log": result.log,
    }


def _cells(result: CellResult, *, fleet: bool) -> list[str]:
    if result.skipped:
        return ["", "", "", "", "", *([""] if fleet else []), "done before"]
    others = (("elsewhere",),) if fleet else ()
    outcomes = (("there", "local"), ("compiled",), *others, ("here",))
    counts = [result.graphs, *(result.count(*words) for words in outcomes)]
    refused = str(len(result.refused))
    if result.refused and result.published_here:
        refused += f" ({result.published_here} published)"
    failed = " [red]failed[/red]" if result.failure else ""
    return [*(str(count) for count in counts), refused, f"{numbers.seconds(result.seconds)}{failed}"]
