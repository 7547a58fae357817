"""Which artifacts cost most and which programs use them: answers for a page, bounded however full the store is."""

from __future__ import annotations

from dataclasses import dataclass

from compile_wire.digest import Digest
from compiler_daemon.store.artifacts import ROW_COLUMNS, artifact_row
from compiler_daemon.store.index import Index
from compiler_daemon.store.rows import ArtifactRow
from compiler_daemon.store.stamps import Stamps


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramRow:
    """What the store holds of one program's graphs."""

    program: str
    artifacts: int
    hits: int
    compile_s: float
    saved_s: float
    """Compile seconds of the artifacts, each as often as it was found."""
    used: float


class Rankings:
    """The rankings of a store. Safe to call from any thread."""

    def __init__(self, index: Index, stamps: Stamps) -> None:
        self._index = index
        self._stamps = stamps

    def slowest(self, limit: int) -> list[ArtifactRow]:
        """Return the artifacts that took longest to compile."""
        self._stamps.flush()
        with self._index.reading() as connection:
            rows = connection.execute(
                f"SELECT {ROW_COLUMNS} FROM artifacts ORDER BY compile_s DESC, rowid LIMIT ?",  # noqa: S608  # a constant
                (limit,),
            ).fetchall()
        return [artifact_row(row) for row in rows]

    def artifact(self, digest: Digest) -> tuple[ArtifactRow, bytes] | None:
        """Return an artifact's row and manifest. See `Store.artifact_row`."""
        self._stamps.flush()
        with self._index.reading() as connection:
            row = connection.execute(
                f"SELECT {ROW_COLUMNS}, manifest FROM artifacts WHERE digest = ?",  # noqa: S608  # a constant
                (digest,),
            ).fetchone()
        return None if row is None else (artifact_row(row[:-1]), row[-1])

    def programs(self, limit: int) -> list[ProgramRow]:
        """Return the programs for which most time was saved."""
        self._stamps.flush()
        with self._index.reading() as connection:
            rows = connection.execute(
                """SELECT program, count(*), sum(hits), sum(compile_s), sum(hits * compile_s) AS saved, max(used)
                   FROM artifacts GROUP BY program ORDER BY saved DESC, program LIMIT ?""",
                (limit,),
            ).fetchall()
        return [
            ProgramRow(program=program, artifacts=count, hits=hits, compile_s=seconds, saved_s=saved, used=used)
            for program, count, hits, seconds, saved, used in rows
        ]
