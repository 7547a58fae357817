"""The SQLite index: what the files hold, arranged for questions.

The files are the truth and the index follows them, so it runs with `synchronous=NORMAL`: a kill -9 loses nothing that
was committed, a power cut may lose the newest rows, and the start-up scan reads those again from the files. Only use
stamps, counters and the history of compile times live here alone.

One connection writes, one reads; in WAL mode a lookup never waits for a writer's disk.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from compiler_daemon.store.directory import Directory
from compiler_daemon.store.errors import StoreClosedError

SCHEMA_VERSION = 1
_FILE = "index.sqlite3"
_ASIDE = re.compile(re.escape(_FILE) + r"\.damaged-([0-9]{1,9})")
_KEPT_DAMAGED = 3
"""Indexes that were set aside; evidence for a person, and soon only clutter."""

_TABLES = {
    "blobs": "digest TEXT PRIMARY KEY, bytes INTEGER NOT NULL, created REAL NOT NULL",
    "artifacts": """
        digest TEXT PRIMARY KEY, environment TEXT NOT NULL, key TEXT NOT NULL, graph TEXT NOT NULL,
        manifest BLOB NOT NULL, signature BLOB NOT NULL, program TEXT NOT NULL, origin TEXT NOT NULL,
        bytes INTEGER NOT NULL, record_bytes INTEGER NOT NULL, record_ns INTEGER NOT NULL, compile_s REAL NOT NULL,
        created REAL NOT NULL, used REAL NOT NULL, hits INTEGER NOT NULL, pinned INTEGER NOT NULL""",
    "artifact_blobs": "artifact TEXT NOT NULL, blob TEXT NOT NULL, PRIMARY KEY (artifact, blob)",
    "graphs": "digest TEXT PRIMARY KEY, bytes INTEGER NOT NULL",
    "requests": """
        name TEXT PRIMARY KEY, environment TEXT NOT NULL, key TEXT NOT NULL, graph TEXT NOT NULL,
        program TEXT NOT NULL, bytes INTEGER NOT NULL, record_ns INTEGER NOT NULL, created REAL NOT NULL""",
    "counters": "name TEXT PRIMARY KEY, value INTEGER NOT NULL",
    "compiles": """
        number INTEGER PRIMARY KEY, environment TEXT NOT NULL, key TEXT NOT NULL, seconds REAL NOT NULL,
        UNIQUE (environment, key)""",
    "totals": "name TEXT PRIMARY KEY, bytes INTEGER NOT NULL",
}
_ADDED = {
    # Counters and sizes as they were at some moments, as msgpack; see samples.py.
    "samples": "step INTEGER NOT NULL, time INTEGER NOT NULL, figures BLOB NOT NULL, PRIMARY KEY (step, time)",
}
_INDEXES = {
    "artifacts_by_key": "artifacts (environment, key)",
    "artifacts_by_use": "artifacts (used)",
    "artifact_blobs_by_blob": "artifact_blobs (blob)",
    "requests_by_graph": "requests (graph)",
}
_TOTALS = {("blobs", "bytes"): "shelved", ("artifacts", "record_bytes"): "shelved"} | {
    (table, "bytes"): "graphs" for table in ("graphs", "requests")
}
"""Columns whose sums are kept, and under which name: every put asks for them, and a sum over all rows is slow."""

_TRIGGERS = {
    f"{table}_{event.lower()}": f"AFTER {event} ON {table} BEGIN "  # noqa: S608  # constants
    f"UPDATE totals SET bytes = bytes + {change.format(column)} WHERE name = '{total}'; END"
    for (table, column), total in _TOTALS.items()
    for event, change in {"INSERT": "new.{0}", "DELETE": "(-old.{0})", "UPDATE": "new.{0} - old.{0}"}.items()
}
_DAMAGE = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
"""Codes that mean, for the statements below, that the file is not the index it should be."""


class _NotOurIndexError(Exception):
    """The file is a sound database, but not an index of this version."""


class Index:
    """Holds the open SQLite index. Safe to call from any thread."""

    def __init__(self, directory: Directory, set_aside: str) -> None:
        self.lock = threading.RLock()
        """Held while rows change, and while files change in step with them."""
        self.set_aside = set_aside
        """Name given to a damaged index at start; empty where it was sound."""
        self._directory = directory
        self._read_lock = threading.Lock()
        self._writer = _connect(directory.root / _FILE)
        self._reader = _connect(directory.root / _FILE)
        self._writer.execute("PRAGMA journal_mode=WAL")
        self._reader.execute("PRAGMA query_only=ON")
        self._closed = False

    @classmethod
    def open(cls, directory: Directory) -> Index:
        """Open the index; set a damaged one aside and begin an empty one in its place."""
        path = directory.root / _FILE
        with directory.failing_as("open the index"):
            set_aside = ""
            if not _is_sound(path):
                set_aside = _set_aside(path)
                if not _is_sound(path):
                    raise sqlite3.DatabaseError("a new index is not readable either")
            return cls(directory, set_aside)

    def close(self) -> None:
        """Write everything into the one file and close it."""
        with self.lock, self._read_lock:
            if self._closed:
                return
            self._closed = True
            self._reader.close()
            with suppress(sqlite3.Error):  # what is not checkpointed stays in the -wal file and is read from there
                self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._writer.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Begin a transaction: committed at the end of the block, rolled back where it raises. Not to be nested."""
        with self.lock, self._directory.failing_as("update the index"):
            self._check_open()
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that sees the last committed state; it blocks other readers, so keep the block short."""
        with self._directory.failing_as("read the index"), self._read_lock:
            self._check_open()
            yield self._reader

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError("the store is closed")


def total_bytes(connection: sqlite3.Connection, name: Literal["shelved", "graphs"]) -> int:
    """Return a kept sum: of blobs and artifact records, or of graphs and requests."""
    total: int = connection.execute("SELECT bytes FROM totals WHERE name = ?", (name,)).fetchone()[0]
    return total


def clamp_times(connection: sqlite3.Connection) -> None:
    """Bring times from the future back to now: after the clock was set back they would stay young for too long."""
    now = time.time()
    connection.execute("UPDATE artifacts SET used = ? WHERE used > ?", (now, now))
    connection.execute("UPDATE blobs SET created = ? WHERE created > ?", (now, now))


def _connect(path: Path) -> sqlite3.Connection:
    # Autocommit: transactions are begun and ended by `Index.writing` alone.
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA trusted_schema=OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _is_sound(path: Path) -> bool:
    """Return whether `path` is a readable index of this version, or new; give a new one its tables."""
    # SQLite gives -wal and -shm the mode of the main file.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    connection: sqlite3.Connection | None = None
    try:
        connection = _connect(path)
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            _make_tables(connection)
        _check_schema(connection)
        _add_tables(connection)
        ((verdict, *_), *_) = connection.execute("PRAGMA quick_check(1)")
    except _NotOurIndexError:
        return False
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        if code & 0xFF in _DAMAGE or code == sqlite3.SQLITE_IOERR_SHORT_READ:
            return False
        raise
    else:
        return bool(verdict == "ok")
    finally:
        if connection is not None:
            connection.close()


def _make_tables(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    for name, columns in _TABLES.items():
        connection.execute(f"CREATE TABLE {name} ({columns})")
    for name, columns in _INDEXES.items():
        connection.execute(f"CREATE INDEX {name} ON {columns}")
    for name, action in _TRIGGERS.items():
        connection.execute(f"CREATE TRIGGER {name} {action}")
    connection.executemany("INSERT INTO totals VALUES (?, 0)", [(name,) for name in sorted(set(_TOTALS.values()))])
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _check_schema(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE sql IS NOT NULL")}
    if version != SCHEMA_VERSION or not names >= {*_TABLES, *_INDEXES, *_TRIGGERS}:
        raise _NotOurIndexError


def _add_tables(connection: sqlite3.Connection) -> None:
    for name, columns in _ADDED.items():
        connection.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")


def _set_aside(path: Path) -> str:
    """Rename the index and its -wal; return the name. The -shm is only a map of the -wal."""
    taken = [int(match[1]) for file in path.parent.iterdir() if (match := _ASIDE.fullmatch(file.name))]
    number = max(taken, default=0) + 1
    aside = path.with_name(f"{_FILE}.damaged-{number}")
    with suppress(FileNotFoundError):
        os.rename(f"{path}-wal", f"{aside}-wal")
    Path(f"{path}-shm").unlink(missing_ok=True)
    os.rename(path, aside)
    for old in sorted(taken)[: 1 - _KEPT_DAMAGED]:
        for name in (f"{_FILE}.damaged-{old}", f"{_FILE}.damaged-{old}-wal"):
            path.with_name(name).unlink(missing_ok=True)
    return aside.name
