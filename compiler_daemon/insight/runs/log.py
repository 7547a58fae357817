"""The log of runs, in an SQLite file of its own."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compile_wire.digest import Digest, digest_of
from compile_wire.kernel.environment import kernels_run
from compile_wire.limits import MAX_GRAPHS_PER_RUN
from compiler_daemon.errors import RunLogError
from compiler_daemon.insight.runs.database import open_database
from compiler_daemon.insight.runs.records import OUTCOMES, GraphRecord, ProgramFigures, RunReport, RunSummary

logger = logging.getLogger(__name__)

_MAX_RUNS = 500
_MAX_GRAPHS = 50_000
_MAX_PROGRAMS = 500
_MAX_REASONS = 20_000
_MAX_REFUSED_BYTES = 64 * 2**20
"""Graphs that were refused are kept for `explain` alone: the oldest go first."""

_GRAPH_COLUMNS = "number, key, outcome, reason, message, tried, waited_s, saved_s, spent_s, graph, asked, cause"
_RUN_COLUMNS = "number, run, program, pid, environment, started, seen, ended, unreported, fallbacks"


class RunLog:
    """Keeps what trainers reported of their runs. Safe to call from any thread; raises only `RunLogError`."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; raise `RunLogError` where the disk does not let us."""
        self._lock = threading.Lock()
        self._closed = False
        with _trouble("open"):
            self._connection = open_database(path)

    def close(self) -> None:
        """Write everything into the one file. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._connection.close()

    def add(self, report: RunReport) -> list[GraphRecord]:
        """Keep a report; return those of its graphs that were not known."""
        with self._writing() as connection:
            known = connection.execute("SELECT number, fallbacks FROM runs WHERE run = ?", (report.run,)).fetchone()
            now = time.time()
            if known is None:
                known = (self._begin(connection, report, now), "{}")
            number, fallbacks = known[0], json.loads(known[1])
            connection.execute(
                "UPDATE runs SET seen = ?, ended = max(ended, ?), unreported = max(unreported, ?), fallbacks = ? "
                "WHERE number = ?",
                (now, report.ended, report.unreported, json.dumps({**fallbacks, **report.fallbacks}), number),
            )
            new = self._add_graphs(connection, number, report.graphs)
            self._count(connection, report, new, fallbacks, now)
            self._trim(connection)
        return new

    def run(self, run: str = "", *, program: str = "") -> RunSummary | None:
        """Return a run: the one of this name, else the program's last, else the last; None where there is none."""
        where, value = ("run = ?", (run,)) if run else ("program = ?", (program,)) if program else ("1", ())
        found = self._runs(f"WHERE {where} ORDER BY seen DESC, number DESC LIMIT 1", value)
        return found[0] if found else None

    def last_runs(self, limit: int) -> list[RunSummary]:
        """Return the runs that were heard of last, the newest first."""
        return self._runs("ORDER BY seen DESC, number DESC LIMIT ?", (limit,))

    def graphs(self, run: str) -> list[GraphRecord]:
        """Return the graphs of a run, in their order."""
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT {_GRAPH_COLUMNS} FROM graphs WHERE run = (SELECT number FROM runs WHERE run = ?) "  # noqa: S608  # constants
                "ORDER BY number",
                (run,),
            ).fetchall()
        return [_graph(row) for row in rows]

    def keys(self, prefix: str, limit: int) -> list[str]:
        """Return keys of graphs that begin like this."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT key FROM graphs WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
                (prefix, prefix + "\U0010ffff", limit),
            ).fetchall()
        return [key for (key,) in rows]

    def last_of_key(self, key: str) -> tuple[str, GraphRecord] | None:
        """Return the last miss of a key, else its last hit; with the run."""
        columns = ", ".join(f"graphs.{name}" for name in _GRAPH_COLUMNS.split(", "))
        with self._reading() as connection:
            row = connection.execute(
                f"SELECT runs.run, {columns} FROM graphs JOIN runs ON runs.number = graphs.run WHERE key = ? "  # noqa: S608  # constants
                "ORDER BY outcome IN ('compiled_by_daemon', 'compiled_here') DESC, asked DESC LIMIT 1",
                (key,),
            ).fetchone()
        return (row[0], _graph(row[1:])) if row else None

    def programs(self) -> list[ProgramFigures]:
        """Return the figures of each program, the one heard of last first."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT program, runs, hit_local, hit, compiled_by_daemon, compiled_here, waited_s, saved_s, spent_s, "
                "seen FROM programs ORDER BY seen DESC"
            ).fetchall()
            reasons: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
            for program, kind, reason, count in connection.execute("SELECT program, kind, reason, count FROM reasons"):
                reasons[program, kind][reason] = count
        return [
            ProgramFigures(
                program=row[0],
                runs=row[1],
                outcomes=dict(zip(OUTCOMES, row[2:6], strict=True)),
                waited_s=row[6],
                saved_s=row[7],
                spent_s=row[8],
                seen=row[9],
                misses=reasons[row[0], "miss"],
                here=reasons[row[0], "here"],
                fallbacks=reasons[row[0], "fallback"],
            )
            for row in rows
        ]

    def keep_refused(self, environment: Digest, key: str, data: bytes, *, program: str) -> None:
        """Keep the graph of a request that was refused, so that it can be explained."""
        if len(data) > _MAX_REFUSED_BYTES // 4:
            return
        with self._writing() as connection:
            connection.execute("DELETE FROM refused WHERE environment = ? AND key = ?", (environment, key))
            connection.execute(
                "INSERT INTO refused (environment, key, graph, program, data, created) VALUES (?, ?, ?, ?, ?, ?)",
                (environment, key, digest_of(data), program, data, time.time()),
            )
            kept = 0
            for number, size in connection.execute(
                "SELECT number, length(data) FROM refused ORDER BY number DESC"
            ).fetchall():
                kept += size
                if kept > _MAX_REFUSED_BYTES:
                    connection.execute("DELETE FROM refused WHERE number <= ?", (number,))
                    break

    def refused_graph(self, graph: str) -> bytes | None:
        """Return a refused graph's bytes by its digest; None where it is not kept."""
        with self._reading() as connection:
            row = connection.execute("SELECT data FROM refused WHERE graph = ?", (graph,)).fetchone()
        return bytes(row[0]) if row else None

    @staticmethod
    def _begin(connection: sqlite3.Connection, report: RunReport, now: float) -> int:
        # The process's other record counts for this one, too: it is one run.
        told = connection.execute("SELECT 1 FROM runs WHERE run = ?", (kernels_run(report.run),)).fetchone() is not None
        cursor = connection.execute(
            "INSERT INTO runs (run, program, pid, environment, started, seen, ended, unreported, fallbacks) "
            "VALUES (?, ?, ?, ?, ?, ?, 0, 0, '{}')",
            (report.run, report.program, report.pid, report.environment, report.started, now),
        )
        connection.execute(
            "INSERT INTO programs VALUES (?, 1, 0, 0, 0, 0, 0, 0, 0, ?) "
            "ON CONFLICT (program) DO UPDATE SET runs = runs + ?, seen = excluded.seen",
            (report.program, now, 0 if told else 1),
        )
        number = cursor.lastrowid
        assert number is not None
        return number

    @staticmethod
    def _add_graphs(connection: sqlite3.Connection, number: int, graphs: Sequence[GraphRecord]) -> list[GraphRecord]:
        count = connection.execute("SELECT count(*) FROM graphs WHERE run = ?", (number,)).fetchone()[0]
        new: list[GraphRecord] = []
        for graph in graphs:
            if count + len(new) >= MAX_GRAPHS_PER_RUN:
                connection.execute("UPDATE runs SET unreported = unreported + 1 WHERE number = ?", (number,))
                continue
            cursor = connection.execute(
                f"INSERT OR IGNORE INTO graphs (run, {_GRAPH_COLUMNS}) VALUES (?{', ?' * 12})",  # noqa: S608  # constants
                (
                    number, graph.number, graph.key, graph.outcome, graph.reason, graph.message, graph.tried,
                    graph.waited_s, graph.saved_s, graph.spent_s, graph.graph, graph.asked, graph.cause,
                ),
            )  # fmt: skip
            if cursor.rowcount:
                new.append(graph)
        return new

    @staticmethod
    def _count(
        connection: sqlite3.Connection,
        report: RunReport,
        new: Sequence[GraphRecord],
        before: dict[str, int],
        now: float,
    ) -> None:
        for graph in new:
            connection.execute(
                f"UPDATE programs SET {graph.outcome} = {graph.outcome} + 1, waited_s = waited_s + ?, "  # noqa: S608  # a checked name
                "saved_s = saved_s + ?, spent_s = spent_s + ?, seen = ? WHERE program = ?",
                (graph.waited_s, graph.saved_s, graph.spent_s, now, report.program),
            )
        counted: list[tuple[str, str, int]] = [("miss", graph.cause, 1) for graph in new if graph.cause]
        counted += [("here", graph.reason or "unknown", 1) for graph in new if graph.outcome == "compiled_here"]
        counted += [
            ("fallback", reason, count - before.get(reason, 0))
            for reason, count in report.fallbacks.items()
            if count > before.get(reason, 0)
        ]
        connection.executemany(
            "INSERT INTO reasons VALUES (?, ?, ?, ?) "
            "ON CONFLICT (program, kind, reason) DO UPDATE SET count = count + excluded.count",
            [(report.program, *counts) for counts in counted],
        )

    @staticmethod
    def _trim(connection: sqlite3.Connection) -> None:
        """Let the oldest go. Cheap where nothing is too many."""
        runs, graphs = connection.execute(
            "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM graphs)"
        ).fetchone()
        while runs > _MAX_RUNS or (graphs > _MAX_GRAPHS and runs > 1):
            oldest = connection.execute("SELECT number FROM runs ORDER BY seen, number LIMIT 1").fetchone()[0]
            graphs -= connection.execute("DELETE FROM graphs WHERE run = ?", (oldest,)).rowcount
            runs -= connection.execute("DELETE FROM runs WHERE number = ?", (oldest,)).rowcount
        programs, reasons = connection.execute(
            "SELECT (SELECT count(*) FROM programs), (SELECT count(*) FROM reasons)"
        ).fetchone()
        while programs > _MAX_PROGRAMS or (reasons > _MAX_REASONS and programs > 1):
            oldest = connection.execute("SELECT program FROM programs ORDER BY seen LIMIT 1").fetchone()[0]
            reasons -= connection.execute("DELETE FROM reasons WHERE program = ?", (oldest,)).rowcount
            programs -= connection.execute("DELETE FROM programs WHERE program = ?", (oldest,)).rowcount

    def _runs(self, clause: str, values: tuple[Any, ...]) -> list[RunSummary]:
        with self._reading() as connection:
            rows = connection.execute(f"SELECT {_RUN_COLUMNS} FROM runs {clause}", values).fetchall()  # noqa: S608  # constants
            return [self._summary(connection, row) for row in rows]

    @staticmethod
    def _summary(connection: sqlite3.Connection, row: tuple[Any, ...]) -> RunSummary:
        outcomes: dict[str, int] = {}
        waited = saved = spent = 0.0
        for outcome, count, *seconds in connection.execute(
            "SELECT outcome, count(*), sum(waited_s), sum(saved_s), sum(spent_s) FROM graphs WHERE run = ? "
            "GROUP BY outcome",
            (row[0],),
        ):
            outcomes[outcome] = count
            waited, saved, spent = (a + b for a, b in zip((waited, saved, spent), seconds, strict=True))
        return RunSummary(
            run=row[1], program=row[2], pid=row[3], environment=row[4], started=row[5], seen=row[6], ended=bool(row[7]),
            unreported=row[8], fallbacks=json.loads(row[9]), outcomes=outcomes, waited_s=waited, saved_s=saved,
            spent_s=spent,
        )  # fmt: skip

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _trouble("write"):
            self._check_open()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _trouble("read"):
            self._check_open()
            yield self._connection

    def _check_open(self) -> None:
        if self._closed:
            raise RunLogError("the log of runs is closed")


def _graph(row: Sequence[Any]) -> GraphRecord:
    return GraphRecord(**dict(zip(_GRAPH_COLUMNS.split(", "), row, strict=True)))


@contextmanager
def _trouble(doing: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise RunLogError(
            f"could not {doing} the log of runs: {error}; look at the disk of the daemon's directory"
        ) from error
