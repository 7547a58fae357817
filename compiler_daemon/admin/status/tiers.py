"""A daemon's tiers for people: what each is good for now, and what it has done since the daemon started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from compiler_daemon.admin.answers import TierCallsState, TierState
from compiler_daemon.admin.plain import plain
from compiler_daemon.text import numbers

_SENTENCES = 3


def tiers_table(tiers: Sequence[TierState]) -> Table:
    """Return all that is known of the tiers: what each line says, and the sentence."""
    table = Table(show_header=False, box=None)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for tier in tiers:
        table.add_row("tier", plain(tier.address))
        for name, text in _lines(tier):
            table.add_row(f"  {name}", plain(text))
    return table


def calls_text(calls: TierCallsState) -> str:
    """Say how reads, or writes, fare."""
    match calls.state:
        case "open":
            return f"paused, tried again in {numbers.seconds(calls.retry_in_s)}: {calls.reason}"
        case "half-open":
            return f"paused, the next one is a trial: {calls.reason}"
        case _ if calls.failures:
            return f"made; the last {numbers.counted(calls.failures, 'call')} failed: {calls.reason}"
        case _:
            return "made"


def _lines(tier: TierState) -> Iterator[tuple[str, str]]:
    counts = tier.counts
    yield "reads", calls_text(tier.reads)
    yield "writes", calls_text(tier.writes)
    yield "budget", f"a lookup waits {numbers.seconds(tier.budget_s)}"
    found = f"{counts.get('hits', 0)} hits, {counts.get('misses', 0)} misses"
    yield "found", f"{found}, {counts.get('late', 0)} too late, {numbers.size(counts.get('bytes_read', 0))} read"
    written = f"{counts.get('written', 0)} written, {counts.get('adopted', 0)} adopted"
    dropped = f", {counts['dropped']} dropped" if counts.get("dropped") else ""
    yield "shared", f"{written}{dropped}, {numbers.size(tier.waiting_bytes)} waiting"
    if tier.rejected:
        yield "rejected", ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in tier.rejected.items())
    for text in tier.rejections[: -_SENTENCES - 1 : -1]:
        yield "", text
