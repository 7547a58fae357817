"""A lookup with its transfer, against redis-py GET and a bare gRPC echo: latency, throughput, the daemon's memory.

    python -m benches.wire
    python -m benches.wire --rows daemon@250KB,1,redis@250KB,1 --rounds 9 --out benches/results/wire.json

A row is TARGET@SIZE,CLIENTS. `daemon` is the real client over the Unix socket: lookup, transfer (streamed where an
artifact does not fit into a message), signature and every digest checked. `redis` is redis-py's GET of as many bytes in
one value, from a redis-server on a Unix socket. `echo` is gRPC alone, the same calls with the same bytes out of memory
and nothing looked at: what this transport can do. The three take turns, cell by cell and round by round, from processes
that stay. A wrong or missing answer fails the bench.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benches.harness.daemon import ServedDaemon, ServeError
from benches.harness.measure import BenchError, Ratio, Row, arguments, finish
from benches.harness.output import complain, say
from benches.harness.processes import run_bench
from benches.lookup.callers import MOST_PROCESSES, Callers, Seen, Target, Turn, callers
from benches.lookup.fixtures import Shelf, shelved

CELLS = (("10KB", 1), ("250KB", 1), ("250KB", 8), ("250KB", 64), ("4MB", 1), ("64MB", 1))
TARGETS: tuple[Target, ...] = ("daemon", "redis", "echo")
ROWS = tuple(f"{target}@{size},{clients}" for size, clients in CELLS for target in TARGETS)
RATIOS = tuple(
    Ratio(f"daemon@{size},{clients}", f"{other}@{size},{clients}", goal, "p50_ms")
    for size, clients in CELLS
    for other, goal in (("redis", 1.5 if (size, clients) == ("250KB", 1) else None), ("echo", None))
)
LIMITS = {"daemon@250KB,1:p50_ms": 3.0}
"""Goals that are no ratios."""


class SpreadRow(Row):
    """A row whose medians come with their extremes."""

    def as_dict(self) -> dict[str, Any]:
        """Return medians, and of latency and throughput also the extremes over the rounds."""
        figures = Row.as_dict(self)
        for name in ("p50_ms", "per_s"):
            if values := self.values.get(name):
                figures |= {f"{name}_min": round(min(values), 4), f"{name}_max": round(max(values), 4)}
        return figures


def main(argv: list[str] | None = None) -> int:
    """Run the bench; return the exit code."""
    options = _options(argv)
    rows: dict[str, Row] = {name: SpreadRow() for name in options.rows}
    try:
        with tempfile.TemporaryDirectory(prefix="wire-") as text:
            memory = _measure(Path(text), rows, options)
    except (BenchError, ServeError) as error:
        complain(error)
        return 1
    finish("wire", rows, RATIOS, options.out, daemon_rss_mib=memory, limits=LIMITS)
    return 0


def _measure(folder: Path, rows: dict[str, Row], options: argparse.Namespace) -> dict[str, Any]:
    """Run all rows in turn; return the daemon's memory before, under and after it."""
    cells = [cell for cell in CELLS if any(f"{target}@{cell[0]},{cell[1]}" in rows for target in TARGETS)]
    daemon = ServedDaemon(folder, "--workers", "1", "--no-prewarm")
    daemon.start()
    memory: dict[str, Any] = {"before": _mib(daemon), "under": {}}
    try:
        sizes = dict.fromkeys(size for size, _ in cells)
        targets: list[Target] = [target for target in TARGETS if any(name.startswith(target) for name in rows)]
        with shelved(folder, daemon, sizes, targets) as (shelves, places):
            memory["filled"] = _mib(daemon)
            processes = min(MOST_PROCESSES, max(clients for _, clients in cells))
            with callers(places, processes) as those:
                for number in range(options.rounds):
                    for size, clients in cells:
                        for target in TARGETS:
                            if (name := f"{target}@{size},{clients}") in rows:
                                most = _turn(those, daemon, target, shelves[size], clients, rows[name], options)
                                if target == "daemon":
                                    cell = f"{size},{clients}"
                                    memory["under"][cell] = max(most, memory["under"].get(cell, 0.0))
                    say(f"round {number + 1}/{options.rounds}")
        memory["after"] = _mib(daemon)
        counters = daemon.status().counters
        if counters.get("lookup_misses", 0) or counters.get("entries_unusable", 0):
            raise BenchError(f"the daemon counted misses: {dict(counters)}")
    finally:
        daemon.stop()
    return memory


def _turn(
    those: Callers,
    daemon: ServedDaemon,
    target: Target,
    shelf: Shelf,
    clients: int,
    row: Row,
    options: argparse.Namespace,
) -> float:
    """Let the clients of one row read for a while; return the daemon's largest memory meanwhile, in MiB."""
    most = 0.0

    def look() -> None:
        nonlocal most
        if target == "daemon":
            most = max(most, _mib(daemon))

    turn = Turn(
        target=target,
        clients=clients,
        held=shelf,
        seconds=options.seconds,
        calls=options.calls,
    )
    row.add(_figures(those.take(turn, look), statistics.mean(held.bytes for held in shelf.values())))
    return most


def _figures(seen: list[Seen], size: float) -> dict[str, float]:
    ms = sorted(value for part in seen for value in part.ms)
    per_s = sum(len(part.ms) / part.seconds for part in seen)
    return {
        "p50_ms": statistics.median(ms),
        "p99_ms": ms[min(len(ms) - 1, int(0.99 * len(ms)))],
        "per_s": per_s,
        "mib_per_s": per_s * size / 2**20,
        "calls": len(ms),
    }


def _mib(daemon: ServedDaemon) -> float:
    return round(daemon.sample().rss_bytes / 2**20, 1)


def _options(argv: list[str] | None) -> argparse.Namespace:
    shared = arguments("wire", __doc__, ROWS, rounds=5)
    parser = argparse.ArgumentParser(
        prog=shared.prog,
        description=shared.description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[shared],
        add_help=False,  # the parent's
        conflict_handler="resolve",  # rows have commas in their names here
    )
    parser.add_argument("--rows", type=_chosen, default=list(ROWS), help="which rows to run, by commas (default all)")
    parser.add_argument("--seconds", type=float, default=0.8, help="of a row in a round (default 0.8)")
    parser.add_argument("--calls", type=int, default=0, help="of each client in a round, at most (default no limit)")
    return parser.parse_args(argv)


def _chosen(given: str) -> list[str]:
    names = re.split(r",(?=[a-z])", given)
    if unknown := [name for name in names if name not in ROWS]:
        raise argparse.ArgumentTypeError(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return [name for name in ROWS if name in names]


if __name__ == "__main__":
    run_bench(main)
