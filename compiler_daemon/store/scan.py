"""The start-up scan: brings the index to what the files say, and the files to what a crash left unfinished.

An artifact exists where its record is sound and all its blobs are there in full size; contents are hashed when they are
read, not here, so that a start takes time by the number of files and not by their bytes. Runs alone, before the store
answers anything, in one transaction.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass

from compile_wire.digest import Digest
from compile_wire.errors import WireError
from compile_wire.manifest import Manifest
from compiler_daemon.store.artifacts import blob_sizes, insert_artifact
from compiler_daemon.store.deletion import count_quarantined, delete_artifacts, delete_requests
from compiler_daemon.store.directory import Directory
from compiler_daemon.store.files import FileStore, FileStores
from compiler_daemon.store.history import insert_compile
from compiler_daemon.store.index import Index, clamp_times
from compiler_daemon.store.quarantine import Quarantine
from compiler_daemon.store.record_files import ArtifactRecord, RequestRecord, decode_artifact, decode_request
from compiler_daemon.store.requests import insert_request
from compiler_daemon.store.rows import ScanReport

logger = logging.getLogger(__name__)


_WORDS = {
    "temporary_files": "unfinished files removed",
    "adopted_blobs": "blobs taken in again",
    "adopted_artifacts": "artifacts taken in again",
    "adopted_requests": "graphs taken in again",
    "lost_blobs": "blobs lost",
    "lost_artifacts": "artifacts lost",
    "lost_requests": "graphs lost",
}


@dataclass(slots=True)
class _Counts:
    adopted_blobs: int = 0
    adopted_artifacts: int = 0
    adopted_requests: int = 0
    lost_blobs: int = 0
    lost_artifacts: int = 0
    lost_requests: int = 0


def scan(directory: Directory, index: Index, file_stores: FileStores, quarantine: Quarantine) -> ScanReport:
    """Put index and files in order; return what was out of place."""
    counts = _Counts()
    with directory.failing_as("scan the store"):
        temporary_files = file_stores.clear_incoming()
        with index.writing() as connection:
            run = _Scan(connection, file_stores, quarantine, counts)
            sizes = run.blobs()
            run.artifacts(sizes)
            run.requests()
            clamp_times(connection)
    report = ScanReport(
        index_set_aside=index.set_aside,
        temporary_files=temporary_files,
        adopted_blobs=counts.adopted_blobs,
        adopted_artifacts=counts.adopted_artifacts,
        adopted_requests=counts.adopted_requests,
        lost_blobs=counts.lost_blobs,
        lost_artifacts=counts.lost_artifacts,
        lost_requests=counts.lost_requests,
    )
    if index.set_aside:
        logger.warning("the index was damaged: set aside as %s and rebuilt from the files", index.set_aside)
    found = ", ".join(f"{words}: {count}" for name, words in _WORDS.items() if (count := getattr(report, name)))
    logger.info("start-up scan: %s", found or "all in order")
    return report


class _Scan:
    def __init__(
        self, connection: sqlite3.Connection, file_stores: FileStores, quarantine: Quarantine, counts: _Counts
    ) -> None:
        self._connection = connection
        self._file_stores = file_stores
        self._quarantine = quarantine
        self._counts = counts

    def blobs(self) -> dict[Digest, int]:
        """Return the sizes of all blobs that are there."""
        files = self._file_stores.blobs.listing()
        rows: dict[Digest, int] = dict(self._connection.execute("SELECT digest, bytes FROM blobs").fetchall())
        for digest, size in rows.items():
            if (file := files.get(digest)) is None or file.bytes != size:
                self._connection.execute("DELETE FROM blobs WHERE digest = ?", (digest,))
                self._counts.lost_blobs += 1
                if file is not None:
                    self._take(self._file_stores.blobs, digest)
                    del files[digest]
        new = [(digest, file.bytes, file.modified_ns / 1e9) for digest, file in files.items() if digest not in rows]
        self._connection.executemany("INSERT INTO blobs VALUES (?, ?, ?)", new)
        self._counts.adopted_blobs = len(new)
        return {digest: file.bytes for digest, file in files.items()}

    def artifacts(self, sizes: dict[Digest, int]) -> None:
        """Bring the rows of artifacts to the records and blobs that are there."""
        files = self._file_stores.artifacts.listing()
        known = dict(self._connection.execute("SELECT digest, record_ns FROM artifacts").fetchall())
        broken = {
            artifact
            for artifact, blob in self._connection.execute("SELECT artifact, blob FROM artifact_blobs").fetchall()
            if blob not in sizes
        }
        lost = broken | (set(known) - set(files))
        delete_artifacts(self._connection, self._file_stores, lost)
        self._counts.lost_artifacts += len(lost)
        # A record written after its row: after a power cut the index may be a little older than the files.
        news = [digest for digest in set(files) - lost if known.get(digest) != files[digest].modified_ns]
        read = [item for digest in news if (item := self._read_artifact(digest)) is not None]
        # Rows are made in the order of creation: of two made at the same moment the later row is the newer.
        for record, manifest in sorted(read, key=lambda item: item[0].created):
            if any(sizes.get(blob) != size for blob, size in blob_sizes(manifest).items()):
                delete_artifacts(self._connection, self._file_stores, [record.digest])
                self._counts.lost_artifacts += 1
                continue
            insert_artifact(self._connection, record, manifest, files[record.digest])
            if record.digest not in known:
                insert_compile(self._connection, manifest.environment, manifest.key, manifest.compile_s)
                self._counts.adopted_artifacts += 1

    def requests(self) -> None:
        """Bring the rows of requests and graphs to the files that are there."""
        files = self._file_stores.requests.listing()
        graphs = self._file_stores.graphs.listing()
        known = dict(self._connection.execute("SELECT name, record_ns FROM requests").fetchall())
        news = [name for name in files if known.get(name) != files[name].modified_ns]
        read = [item for name in news if (item := self._read_request(name)) is not None]
        for record in sorted(read, key=lambda item: item.created):
            size = graphs[record.graph].bytes if record.graph in graphs else 0
            insert_request(self._connection, record, files[record.name], graph_bytes=size)
            self._counts.adopted_requests += record.name not in known
        rows = self._connection.execute("SELECT name, graph FROM requests").fetchall()
        lost = [name for name, graph in rows if name not in files or graph not in graphs]
        self._counts.lost_requests += len(lost)
        delete_requests(self._connection, self._file_stores, lost)
        kept = {graph for (graph,) in self._connection.execute("SELECT digest FROM graphs").fetchall()}
        for graph in set(graphs) - kept:
            self._file_stores.graphs.remove(graph)  # written, but its request was not

    def _read_artifact(self, digest: Digest) -> tuple[ArtifactRecord, Manifest] | None:
        try:
            record, manifest = decode_artifact(self._file_stores.artifacts.read(digest), digest)
            blob_sizes(manifest)
        except WireError as error:
            logger.warning("the record of artifact %s is damaged: %s", digest, error)
            self._take(self._file_stores.artifacts, digest)
            delete_artifacts(self._connection, self._file_stores, [digest])
            self._counts.lost_artifacts += 1
            return None
        return record, manifest

    def _read_request(self, name: Digest) -> RequestRecord | None:
        try:
            return decode_request(self._file_stores.requests.read(name), name)
        except WireError as error:
            logger.warning("the record of request %s is damaged: %s", name, error)
            self._take(self._file_stores.requests, name)
            delete_requests(self._connection, self._file_stores, [name])
            self._counts.lost_requests += 1
            return None

    def _take(self, file_store: FileStore, name: Digest) -> None:
        self._quarantine.take(file_store.path(name))
        count_quarantined(self._connection)
