"""Deleting entries from index and files, in the one order that a crash cannot turn into half an artifact.

The record goes first, then the rows, then the blobs: an artifact without its record does not exist, whatever is left of
it, and the start-up scan clears it away. Callers hold the index's lock and pass the connection of their transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable

from compile_wire.digest import Digest
from compiler_daemon.store.files import FileStores


def delete_artifacts(connection: sqlite3.Connection, file_stores: FileStores, digests: Iterable[Digest]) -> None:
    """Remove artifacts: record and rows. Their blobs stay and belong to no artifact, where no other one has them."""
    for digest in digests:
        file_stores.artifacts.remove(digest)
        connection.execute("DELETE FROM artifact_blobs WHERE artifact = ?", (digest,))
        connection.execute("DELETE FROM artifacts WHERE digest = ?", (digest,))


def delete_blob(connection: sqlite3.Connection, file_stores: FileStores, digest: Digest) -> None:
    """Remove a blob's row and every artifact that is not complete without it."""
    delete_artifacts(connection, file_stores, artifacts_with(connection, digest))
    connection.execute("DELETE FROM blobs WHERE digest = ?", (digest,))


def artifacts_with(connection: sqlite3.Connection, blob: Digest) -> list[Digest]:
    """Return the artifacts that have this blob."""
    return [row[0] for row in connection.execute("SELECT artifact FROM artifact_blobs WHERE blob = ?", (blob,))]


def delete_requests(connection: sqlite3.Connection, file_stores: FileStores, names: Collection[Digest]) -> None:
    """Remove requests, and the graphs that no other request names."""
    for name in names:
        file_stores.requests.remove(name)
        connection.execute("DELETE FROM requests WHERE name = ?", (name,))
    unused = connection.execute(
        "SELECT digest FROM graphs WHERE NOT EXISTS (SELECT 1 FROM requests WHERE graph = graphs.digest)"
    ).fetchall()
    for (graph,) in unused:
        file_stores.graphs.remove(graph)
        connection.execute("DELETE FROM graphs WHERE digest = ?", (graph,))


def count_quarantined(connection: sqlite3.Connection) -> None:
    """Count one damaged file in the statistics."""
    connection.execute(
        "INSERT INTO counters VALUES ('quarantined', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1"
    )
