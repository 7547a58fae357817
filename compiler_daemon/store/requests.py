"""Requests: which graph was asked for under which key, so that graphs can be replayed and misses explained.

They are small and outlive the artifacts made from them; `max_graph_bytes` bounds them, the oldest go first.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import suppress

from compile_wire.digest import Digest, digest_of, parse_digest
from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_GRAPH_BYTES
from compiler_daemon.store.config import StoreConfig
from compiler_daemon.store.deletion import count_quarantined, delete_requests
from compiler_daemon.store.directory import Directory
from compiler_daemon.store.errors import BlobDamagedError, BlobMissingError, StoreError, StoreFullError
from compiler_daemon.store.files import FileStores, Found
from compiler_daemon.store.index import Index, total_bytes
from compiler_daemon.store.quarantine import Quarantine
from compiler_daemon.store.record_files import RequestRecord, encode_request
from compiler_daemon.store.rows import StoredGraph

logger = logging.getLogger(__name__)

_EVICTED_PART = 16
"""A full store of files loses this part of its requests at once, so that it does not evict on every put."""


class Requests:
    """Keeps the requests of a store and their graphs. Safe to call from any thread."""

    def __init__(
        self, config: StoreConfig, directory: Directory, index: Index, file_stores: FileStores, quarantine: Quarantine
    ) -> None:
        self._max_bytes = config.max_graph_bytes
        self._directory = directory
        self._index = index
        self._file_stores = file_stores
        self._quarantine = quarantine

    def put(self, environment: Digest, key: str, data: bytes, *, program: str) -> Digest:
        """Keep a request. See `Store.put_graph`."""
        if len(data) > MAX_GRAPH_BYTES:
            raise MalformedError(f"a graph of {len(data)} bytes is more than {MAX_GRAPH_BYTES}")
        record = RequestRecord(
            environment=parse_digest(environment),
            key=key,
            graph=digest_of(data),
            program=program,
            created=time.time(),
        )
        encoded = encode_request(record)
        # Once a compile, and a compile takes seconds: the lock is simply held while the two files are written.
        with self._index.lock, self._directory.failing_as("store a graph"):
            in_place = self._file_stores.graphs.size(record.graph) == len(data)
            if in_place and self._is_known(record):
                return record.graph
            self._make_room(len(data) + len(encoded))
            try:
                self._file_stores.graphs.put(record.graph, data)
                file = self._file_stores.requests.put(record.name, encoded)
                with self._index.writing() as connection:
                    insert_request(connection, record, file, graph_bytes=len(data))
                    delete_requests(connection, self._file_stores, [])  # what the key had before may be nobody's now
            except BaseException:
                with suppress(StoreError, OSError):
                    self._take_back(record)
                raise
        return record.graph

    def get(self, digest: Digest) -> bytes:
        """Return a graph's bytes, verified. See `Store.get_graph`."""
        with self._directory.failing_as("read a graph"):
            try:
                data = self._file_stores.graphs.read(digest)
            except FileNotFoundError as error:
                self._directory.check_alive()
                raise BlobMissingError([digest], "no such graph") from error
        if digest_of(data) != digest:
            self._give_up(digest)
            raise BlobDamagedError(digest)
        return data

    def rows(self, environment: Digest | None, key: str | None) -> list[StoredGraph]:
        """Return the requests, newest first."""
        asked = {"environment = ?": environment, "key = ?": key}
        conditions = [condition for condition, value in asked.items() if value is not None]
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        values = [value for value in asked.values() if value is not None]
        with self._index.reading() as connection:
            rows = connection.execute(
                f"""SELECT environment, key, graph, program, graphs.bytes, created
                    FROM requests JOIN graphs ON digest = graph {where} ORDER BY created DESC, requests.rowid DESC""",  # noqa: S608  # constants
                values,
            ).fetchall()
        return [
            StoredGraph(environment=env, key=key, graph=graph, program=program, bytes=size, created=created)
            for env, key, graph, program, size, created in rows
        ]

    def _is_known(self, record: RequestRecord) -> bool:
        with self._index.reading() as connection:
            row = connection.execute("SELECT graph FROM requests WHERE name = ?", (record.name,)).fetchone()
        return row is not None and bool(row[0] == record.graph)

    def _take_back(self, record: RequestRecord) -> None:
        """Remove files that the index could not be told of."""
        with self._index.reading() as connection:
            if not connection.execute("SELECT 1 FROM graphs WHERE digest = ?", (record.graph,)).fetchone():
                self._file_stores.graphs.remove(record.graph)
            if not connection.execute("SELECT 1 FROM requests WHERE name = ?", (record.name,)).fetchone():
                self._file_stores.requests.remove(record.name)

    def _make_room(self, size: int) -> None:
        if size > self._max_bytes:
            raise StoreFullError(f"a graph of {size} bytes does not fit into {self._max_bytes}: raise max_graph_bytes")
        while True:
            with self._index.writing() as connection:
                if total_bytes(connection, "graphs") + size <= self._max_bytes:
                    return
                count = connection.execute("SELECT count(*) FROM requests").fetchone()[0]
                rows = connection.execute(
                    "SELECT name FROM requests ORDER BY created, rowid LIMIT ?", (max(1, count // _EVICTED_PART),)
                )
                delete_requests(connection, self._file_stores, [row[0] for row in rows.fetchall()])

    def _give_up(self, digest: Digest) -> None:
        with self._index.lock, self._directory.failing_as("put a damaged graph into quarantine"):
            logger.warning("graph %s is damaged; it goes to quarantine", digest)
            self._quarantine.take(self._file_stores.graphs.path(digest))
            with self._index.writing() as connection:
                names = connection.execute("SELECT name FROM requests WHERE graph = ?", (digest,)).fetchall()
                delete_requests(connection, self._file_stores, [name for (name,) in names])
                connection.execute("DELETE FROM graphs WHERE digest = ?", (digest,))
                count_quarantined(connection)


def insert_request(connection: sqlite3.Connection, record: RequestRecord, file: Found, *, graph_bytes: int) -> None:
    """Write the rows of a request whose record is `file`, in place of what its key had before."""
    connection.execute("INSERT OR IGNORE INTO graphs VALUES (?, ?)", (record.graph, graph_bytes))
    connection.execute("DELETE FROM requests WHERE name = ?", (record.name,))
    connection.execute(
        "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.name,
            record.environment,
            record.key,
            record.graph,
            record.program,
            file.bytes,
            file.modified_ns,
            record.created,
        ),
    )
