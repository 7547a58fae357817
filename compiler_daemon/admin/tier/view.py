"""A tier for people: tables of 80 columns, and sentences."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from compiler_daemon.admin.plain import plain
from compiler_daemon.admin.tier.cleaning import Cleaned
from compiler_daemon.admin.tier.listing import Row, Summary
from compiler_daemon.admin.tier.verify import Verdict
from compiler_daemon.text import numbers

_PIPE_WIDTH = 200
_ENVIRONMENT, _KEY = 8, 14


def console() -> Console:
    """Return where results go; in a pipe there is no edge to break lines at."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def rows_table(rows: Sequence[Row]) -> Table:
    """Return the objects of a tier."""
    table = Table(box=None, pad_edge=False)
    for name in ("env", "key"):
        table.add_column(name, no_wrap=True)
    for name in ("slot", "size", "age"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("signer", "origin", "host"):
        table.add_column(name, overflow="fold")
    for row in rows:
        known = row.kind == "artifact"
        key = row.key[:_KEY] if known else row.kind or row.name
        table.add_row(
            plain(row.environment[:_ENVIRONMENT]),
            plain(key or "?"),
            str(row.slot) if known else "",
            numbers.size(row.size),
            _age(row.age_s),
            plain(row.signer or ("unreadable" if row.unreadable else "")),
            plain(row.origin if known else ""),
            plain(row.host),
        )
    return table


def summary_text(summary: Summary) -> str:
    """Return how much is in a tier, in one line."""
    artifacts = numbers.counted(summary.artifacts, "artifact")
    keys, environments = numbers.counted(summary.keys, "key"), numbers.counted(summary.environments, "environment")
    others = f", {numbers.counted(summary.others, 'object')} of no daemon's" if summary.others else ""
    oldest = f"; the oldest {_age(summary.oldest_s)}" if summary.oldest_s else ""
    return f"{artifacts} of {keys} in {environments}{others}, {numbers.size(summary.bytes)}{oldest}"


def verdicts_table(verdicts: Sequence[Verdict]) -> Table:
    """Return a line for each object, and what is wrong with those that are no use."""
    table = Table(box=None, pad_edge=False)
    table.add_column("result", no_wrap=True)
    table.add_column("object", overflow="fold")
    for one in verdicts:
        table.add_row(one.result.replace("_", " "), plain(_short_name(one.name)))
        if one.text:
            table.add_row("", plain(one.text))
    return table


def verdicts_text(verdicts: Sequence[Verdict]) -> str:
    """Return the sums of a verification in one line."""
    counts = Counter(one.result for one in verdicts)
    parts = [f"{counts['ok']} ok"]
    parts += [f"{count} {result.replace('_', ' ')}" for result, count in sorted(counts.items()) if result != "ok"]
    return f"{numbers.counted(len(verdicts), 'object')}: {', '.join(parts)}"


def cleaned_text(done: Cleaned) -> str:
    """Say what a cleaning did, or would do."""
    if done.expires_by_itself:
        return f"{done.tier}: a Redis removes by itself what nobody has used for 30 days, and what its `maxmemory` says"
    if done.cleaned_by:
        return f"{done.tier}: {done.cleaned_by} cleans it at this moment, so nothing was done from here"
    verb = "would remove" if done.dry_run else "removed"
    objects = f"{numbers.counted(done.removed, 'object')} ({done.expired} for their age)"
    remnants = f", {numbers.counted(done.remnants, 'lease or marker')} of nobody" if done.remnants else ""
    early = "; another node has taken over, and goes on" if done.has_ended_early else ""
    left = f"{numbers.size(done.left_bytes)} {'would be' if done.dry_run else 'are'} left"
    return f"{done.tier}: {verb} {objects}{remnants}, {numbers.size(done.bytes)}; {left}{early}"


def _short_name(name: str) -> str:
    """Return an artifact's name with the beginnings of its digests; any other as it is."""
    parts = name.split("/")
    return "/".join(part[:12] if len(part) == 64 else part for part in parts)


def _age(seconds: float) -> str:
    return numbers.ago(0.0, seconds)
