"""Counters and compile times: what the daemon knows of its past. Committed at once, so a kill -9 loses none."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping

from compile_wire.digest import Digest
from compile_wire.limits import MAX_KEY_TEXT
from compiler_daemon.store.index import Index
from compiler_daemon.store.record_files import check_text

_KEPT = 10_000
"""Compile times remembered; the oldest go first."""

_RECENT = 32
"""Compiles of an environment whose mean stands in for a key never compiled before."""


class History:
    """Keeps counters and compile times of a store. Safe to call from any thread."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add to counters; all of them or none."""
        with self._index.writing() as connection:
            connection.executemany(
                "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                list(counts.items()),
            )

    def counts(self) -> dict[str, int]:
        """Return all counters, by name."""
        with self._index.reading() as connection:
            return dict(connection.execute("SELECT name, value FROM counters ORDER BY name").fetchall())

    def note_compile(self, environment: Digest, key: str, seconds: float) -> None:
        """Remember how long a compile took."""
        check_text(key, "key", MAX_KEY_TEXT)
        if not (math.isfinite(seconds) and seconds >= 0):
            raise ValueError(f"a compile takes a number of seconds, not {seconds}")
        with self._index.writing() as connection:
            insert_compile(connection, environment, key, seconds)

    def expected_seconds(self, environment: Digest, key: str) -> float | None:
        """Return the last time of the same key, or else the recent mean of the environment; None without any."""
        with self._index.reading() as connection:
            row = connection.execute(
                "SELECT seconds FROM compiles WHERE environment = ? AND key = ?", (environment, key)
            ).fetchone()
            if row is None:
                row = connection.execute(
                    """SELECT avg(seconds) FROM
                       (SELECT seconds FROM compiles WHERE environment = ? ORDER BY number DESC LIMIT ?)""",
                    (environment, _RECENT),
                ).fetchone()
        return None if row[0] is None else float(row[0])


def insert_compile(connection: sqlite3.Connection, environment: Digest, key: str, seconds: float) -> None:
    """Write a compile time as the newest one, and let the oldest go."""
    connection.execute("DELETE FROM compiles WHERE environment = ? AND key = ?", (environment, key))
    connection.execute("INSERT INTO compiles (environment, key, seconds) VALUES (?, ?, ?)", (environment, key, seconds))
    connection.execute("DELETE FROM compiles WHERE number <= (SELECT max(number) FROM compiles) - ?", (_KEPT,))
