"""Which artifacts cost most, and one artifact's row: answers for people, bounded however full the store is."""

from __future__ import annotations

from compile_wire.digest import Digest
from compiler_daemon.store.artifacts import ROW_COLUMNS, artifact_row
from compiler_daemon.store.index import Index
from compiler_daemon.store.rows import ArtifactRow
from compiler_daemon.store.usage_stamps import UsageTracker


class Rankings:
    """Ranks the store's keys by time and use. Safe to call from any thread."""

    def __init__(self, index: Index, usage_tracker: UsageTracker) -> None:
        self._index = index
        self._usage_tracker = usage_tracker

    def slowest(self, limit: int) -> list[ArtifactRow]:
        """Return the artifacts that took longest to compile."""
        self._usage_tracker.flush()
        with self._index.reading() as connection:
            rows = connection.execute(
                f"SELECT {ROW_COLUMNS} FROM artifacts ORDER BY compile_s DESC, rowid LIMIT ?",  # noqa: S608  # a constant
                (limit,),
            ).fetchall()
        return [artifact_row(row) for row in rows]

    def artifact(self, digest: Digest) -> tuple[ArtifactRow, bytes] | None:
        """Return an artifact's row and manifest. See `Store.artifact_row`."""
        self._usage_tracker.flush()
        with self._index.reading() as connection:
            row = connection.execute(
                f"SELECT {ROW_COLUMNS}, manifest FROM artifacts WHERE digest = ?",  # noqa: S608  # a constant
                (digest,),
            ).fetchone()
        return None if row is None else (artifact_row(row[:-1]), row[-1])
