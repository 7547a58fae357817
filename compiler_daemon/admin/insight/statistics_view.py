"""Figures as a person reads them: tables on a terminal, one line elsewhere."""

from __future__ import annotations

import time

from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from compiler_daemon.admin.answers import Figures
from compiler_daemon.admin.plain import plain
from compiler_daemon.text import numbers

_MAX_PROGRAMS = 20
_LINE = 200


def print_statistics(now: Figures, *, since: float = 0.0) -> None:
    """Print all figures, and since when, unless that is 0; names are cut only where a terminal is too narrow."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_LINE)
    if since:
        console.print(f"since {numbers.moment(since)} (--all: since the store was made)\n", highlight=False)
    console.print(statistics_view(now))


def statistics_line(now: Figures) -> str:
    """Return the most important figures in one line, for a log."""
    shared = f"from tiers {now.tiers.hits}, into tiers {now.tiers.written}, " if now.tiers is not None else ""
    return (
        f"hits {now.hits}, misses {now.misses}, merged {now.merged}, compiled {now.compiled}, {shared}"
        f"published {now.published}, saved {numbers.seconds(now.seconds_saved)}, "
        f"spent {numbers.seconds(now.seconds_spent)}, "
        f"{now.artifacts} artifacts, {numbers.size(now.store_bytes)}"
    )


def statistics_view(now: Figures) -> RenderableType:
    """Return all figures as tables."""
    parts: list[RenderableType] = [_overview(now)]
    reasons = _reasons(now)
    if reasons.row_count:
        parts += [Text(), reasons]
    if now.programs:
        parts += [Text(), _programs(now)]
    if now.slowest:
        parts += [Text(), _slowest(now)]
    return Group(*parts)


def _overview(now: Figures) -> Table:
    asked = now.hits + now.misses
    share = f" ({100 * now.hits / asked:.0f}% of {asked})" if asked else ""
    table = Table(show_header=False, box=None)
    rows = {
        "hits": f"{now.hits}{share}",
        "misses": str(now.misses),
        "merged requests": str(now.merged),
        "compiled by workers": f"{now.compiled}, {numbers.seconds(now.seconds_spent)}",
        "compiled in trainers": f"{now.published} published, {numbers.seconds(now.seconds_spent_here)} reported",
        "seconds saved": numbers.seconds(now.seconds_saved),
        "store": f"{now.artifacts} artifacts, {numbers.size(now.store_bytes)}"
        + (f" of {numbers.size(now.store_max_bytes)}" if now.store_max_bytes else ""),
        "runs reported": str(now.runs),
        **_tiers(now),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _tiers(now: Figures) -> dict[str, str]:
    if (tiers := now.tiers) is None:
        return {}
    twice = f"{tiers.duplicates}, and {tiers.adopted} for which another node's artifact is used: it was first"
    return {
        "from tiers": f"{numbers.counted(tiers.hits, 'artifact')}, {numbers.size(tiers.bytes_read)}",
        "into tiers": f"{numbers.counted(tiers.written, 'artifact')}, {numbers.size(tiers.bytes_written)}",
        "duplicates avoided": f"{tiers.merged} compiles that other nodes did meanwhile",
        **({"compiled twice": twice} if tiers.duplicates or tiers.adopted else {}),
    }


_MISSES = {
    "new": "never seen before",
    "environment": "only for another environment",
    "guards": "no artifact's guards held",
    "gone": "evicted, removed or damaged",
}


def _reasons(now: Figures) -> Table:
    table = Table("what", "because", "times", box=None)
    misses = now.misses_by_reason.items()
    kinds = (
        ("miss", {f"{name} ({_MISSES[name]})" if name in _MISSES else name: count for name, count in misses}),
        ("compiled in trainers", now.here_by_reason),
        ("failures with the daemon", now.fallbacks_by_reason),
        ("refused by the daemon", now.refused_by_reason),
    )
    for what, reasons in kinds:
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
            table.add_row(what, plain(reason), str(count))
    return table


def _name(header: str) -> Column:
    """Return a column that goes on in the next line where it is too narrow: a cut name names nothing."""
    return Column(header, overflow="fold")


def _programs(now: Figures) -> Table:
    table = Table(_name("program"), box=None)
    for header in ("runs", "hits", "local\nhits", "by\ndaemon", "in\ntrainer", "saved", "waited", "seen"):
        table.add_column(header)
    for program in now.programs[:_MAX_PROGRAMS]:
        table.add_row(
            plain(program.program or "(no name)"),
            str(program.runs),
            str(program.hits),
            str(program.hits_local),
            str(program.compiled_by_daemon),
            str(program.compiled_here),
            numbers.seconds(program.seconds_saved),
            numbers.seconds(program.seconds_waited),
            numbers.ago(program.seen, time.time()),
        )
    return table


def _slowest(now: Figures) -> Table:
    table = Table("slowest graphs", _name("program"), "took", "by", "hits", "size", box=None)
    for graph in now.slowest:
        table.add_row(
            plain(graph.key[:16]),
            plain(graph.program or "(no name)"),
            numbers.seconds(graph.compile_s),
            plain(graph.origin),
            str(graph.hits),
            numbers.size(graph.bytes),
        )
    return table
