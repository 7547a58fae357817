"""The daemon's state as tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from compiler_daemon.admin.answers import CompileState, DaemonState, RefusedGraph, WorkerState
from compiler_daemon.admin.plain import plain
from compiler_daemon.admin.status.tiers import tiers_table
from compiler_daemon.text import numbers


def print_status(state: DaemonState, flights: Sequence[CompileState], page: str) -> None:
    """Print a daemon's state, its compiles, and the address of its page, which is empty where there is none."""
    console = Console()
    console.print(_overview(state, page))
    if state.tiers:
        console.print(tiers_table(state.tiers))
    if state.workers:
        console.print(_workers(state.workers))
    if flights:
        console.print(_flights(flights))
    if state.quarantined:
        console.print(_quarantined(state.quarantined))
    if state.counters:
        console.print(_counters(state.counters))


def _overview(state: DaemonState, page: str) -> Table:
    table = Table(show_header=False, box=None)
    rows = {
        "daemon": f"{state.server_version}, process {state.pid}" + (", draining" if state.draining else ""),
        "address": state.address,
        "directory": state.directory,
        "up": numbers.seconds(state.uptime_s),
        "memory": numbers.size(state.rss_bytes),
        "store": f"{state.artifacts} artifacts, {state.blobs} blobs, "
        f"{numbers.size(state.store_bytes)} of {numbers.size(state.store_max_bytes)}",
        "sandbox": state.sandbox or "unknown: the daemon is older than this command",
        "waiting": f"{state.queued} graphs",
        "page": f"{page} (compiler-daemon page --open)" if page else "none",
    }
    for name, value in rows.items():
        table.add_row(name, plain(value))
    return table


def _workers(workers: Sequence[WorkerState]) -> Table:
    table = Table("worker", "state", "environment", "key", "for", "jobs", "memory", box=None)
    for worker in workers:
        table.add_row(
            str(worker.pid),
            plain(worker.state),
            plain(worker.environment_id[:12]),
            plain(worker.key[:16]),
            numbers.seconds(worker.elapsed_s) if worker.key else "",
            str(worker.jobs_done),
            numbers.size(worker.rss_bytes),
        )
    return table


def _flights(flights: Sequence[CompileState]) -> Table:
    table = Table("compile", "program", "phase", "for", "done in", "waiters", box=None)
    for flight in flights:
        waiting = flight.phase == "queued"
        table.add_row(
            plain(flight.key[:16]),
            plain(flight.program),
            plain(f"waiting, {flight.position} before it" if waiting else flight.phase),
            numbers.seconds(flight.waited_s if waiting else flight.elapsed_s),
            "unknown" if flight.eta_s is None else f"about {numbers.seconds(flight.eta_s)}",
            str(flight.waiters),
        )
    return table


def _quarantined(graphs: Sequence[RefusedGraph]) -> Table:
    table = Table("refused graph", "for", "because", box=None)
    for graph in graphs:
        table.add_row(plain(graph.key[:16]), numbers.seconds(graph.left_s), plain(graph.reason))
    return table


def _counters(counters: Mapping[str, int]) -> Table:
    table = Table("counter", "since the store was made", box=None)
    for name in sorted(counters):
        table.add_row(plain(name), str(counters[name]))
    return table
