"""The file that runs are kept in: opened, brought to the newest form, set aside where it is damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

logger = logging.getLogger(__name__)

_STEPS = (
    """
    CREATE TABLE runs (
        number INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL UNIQUE, program TEXT NOT NULL,
        pid INTEGER NOT NULL, environment TEXT NOT NULL, started REAL NOT NULL, seen REAL NOT NULL,
        ended INTEGER NOT NULL, unreported INTEGER NOT NULL, fallbacks TEXT NOT NULL);
    CREATE TABLE graphs (
        run INTEGER NOT NULL, number INTEGER NOT NULL, key TEXT NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL,
        message TEXT NOT NULL, tried INTEGER NOT NULL, waited_s REAL NOT NULL, saved_s REAL NOT NULL,
        spent_s REAL NOT NULL, graph TEXT NOT NULL, asked REAL NOT NULL, cause TEXT NOT NULL,
        PRIMARY KEY (run, number)) WITHOUT ROWID;
    CREATE INDEX graphs_by_key ON graphs (key);
    CREATE TABLE programs (
        program TEXT PRIMARY KEY, runs INTEGER NOT NULL, hit_local INTEGER NOT NULL, hit INTEGER NOT NULL,
        compiled_by_daemon INTEGER NOT NULL, compiled_here INTEGER NOT NULL, waited_s REAL NOT NULL,
        saved_s REAL NOT NULL, spent_s REAL NOT NULL, seen REAL NOT NULL);
    CREATE TABLE reasons (
        program TEXT NOT NULL, kind TEXT NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL,
        PRIMARY KEY (program, kind, reason)) WITHOUT ROWID;
    CREATE TABLE refused (
        number INTEGER PRIMARY KEY AUTOINCREMENT, environment TEXT NOT NULL, key TEXT NOT NULL, graph TEXT NOT NULL,
        program TEXT NOT NULL, data BLOB NOT NULL, created REAL NOT NULL, UNIQUE (environment, key));
    CREATE INDEX refused_by_graph ON refused (graph);
    """,
)
"""Each step brings a file from one version to the next. Steps are added, never changed: nothing is lost on the way."""


def open_database(path: Path) -> sqlite3.Connection:
    """Return the open file, with all its tables; a damaged one, or a newer daemon's, is set aside first.

    Raises `sqlite3.Error` or `OSError` where the disk does not let us.
    """
    try:
        return _opened(path)
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise
        aside = path.with_name(f"{path.name}.damaged")
        logger.warning("%s cannot be read (%s): it is set aside as %s, and a new one begins", path, error, aside.name)
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            os.replace(path, aside)
        return _opened(path)


def _opened(path: Path) -> sqlite3.Connection:
    # SQLite gives -wal and -shm the mode of the main file.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA trusted_schema=OFF")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(_STEPS):
            raise sqlite3.DatabaseError(f"it is of version {version}, and this daemon knows {len(_STEPS)}")  # noqa: TRY301  # the connection is closed below
        for number in range(version, len(_STEPS)):
            connection.executescript(f"BEGIN IMMEDIATE;{_STEPS[number]}PRAGMA user_version={number + 1};COMMIT;")
        ((verdict, *_), *_) = connection.execute("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise sqlite3.DatabaseError(str(verdict))  # noqa: TRY301  # the connection is closed below
    except BaseException:
        connection.close()
        raise
    return connection
