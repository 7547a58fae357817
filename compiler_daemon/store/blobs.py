"""Blobs: bytes under their SHA-256, checked when they come and every time they go.

Guarantees: a blob whose put returned is whole on the disk; bytes that do not match their digest are never handed out in
full. A blob found damaged goes to quarantine and takes every artifact that needs it out of the index.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import BinaryIO

from compile_wire.digest import Digest, digest_of
from compiler_daemon.store.deletion import count_quarantined, delete_blob
from compiler_daemon.store.directory import Directory
from compiler_daemon.store.errors import BlobDamagedError, BlobMissingError, StoreError, StoreVanishedError
from compiler_daemon.store.files import Draft, FileStores
from compiler_daemon.store.index import Index
from compiler_daemon.store.pins import Pins
from compiler_daemon.store.quarantine import Quarantine

logger = logging.getLogger(__name__)

_UNREADABLE = b"not readable"
"""Stands for bytes that the disk refuses to read; no digest in the store is of it."""


class Blobs:
    """Keeps the blobs of a store. Safe to call from any thread."""

    def __init__(
        self, directory: Directory, index: Index, file_stores: FileStores, quarantine: Quarantine, pins: Pins
    ) -> None:
        self._directory = directory
        self._index = index
        self._file_stores = file_stores
        self._quarantine = quarantine
        self._pins = pins
        self._bad: set[Digest] = set()
        """Known to be damaged. Outlives a quarantine that failed, as on a disk that has become read-only."""

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return those that are not stored, in order and once each. The others will not be evicted for a while."""
        missing = []
        for digest in dict.fromkeys(digests):
            with self._index.reading() as connection:
                row = connection.execute("SELECT bytes FROM blobs WHERE digest = ?", (digest,)).fetchone()
            if not (row and self._pins.touch(digest) and self.in_place(digest, row[0])):
                missing.append(digest)
        return missing

    def in_place(self, digest: Digest, size: int) -> bool:
        """Return whether the file is there in its full size and not known to be damaged. Does not read it."""
        if digest in self._bad:
            return False
        try:
            found = self._file_stores.blobs.size(digest)
        except OSError as error:
            raise self._directory.translated(error, "look for a blob") from error
        if found is None:
            self._directory.check_alive()
        return found == size

    def place(self, draft: Draft, digest: Digest, size: int) -> bool:
        """Give a complete draft its place; return whether the blob is new. The digest is pinned."""
        with self._directory.failing_as("store a blob"):
            draft.sync()
            with self._index.lock:
                if not self.missing([digest]):
                    return False
                self._file_stores.blobs.place(draft, digest)
            self._file_stores.blobs.sync(digest)
        try:
            with self._index.writing() as connection:
                connection.execute(
                    "INSERT INTO blobs VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET created = excluded.created",
                    (digest, size, time.time()),
                )
                self._bad.discard(digest)
        except BaseException:
            self._take_back(digest)
            raise
        return True

    def read(self, digest: Digest) -> bytes:
        """Return a blob's bytes, verified; see `Store.read_blob`."""
        self._pins.touch(digest)
        data = self._file_bytes(digest)
        if data is None:
            self.give_up(digest)
            raise BlobMissingError([digest])
        if digest_of(data) != digest:
            raise self._found_damaged(digest)
        return data

    def chunks(self, digest: Digest, chunk_bytes: int) -> Iterator[bytes]:
        """Yield a blob's bytes, verified; see `Store.iter_blob`."""
        self._pins.touch(digest)
        sha256 = hashlib.sha256()
        with ExitStack() as stack:
            try:
                with self._directory.failing_as("read a blob"):
                    file = stack.enter_context(open(self._file_stores.blobs.path(digest), "rb"))
            except StoreError as error:
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
                self.give_up(digest)
                raise BlobMissingError([digest]) from error
            held = self._piece(file, chunk_bytes)
            while piece := self._piece(file, chunk_bytes):
                sha256.update(held)
                yield held
                held = piece
        sha256.update(held)
        if sha256.hexdigest() != digest:
            raise self._found_damaged(digest)
        if held:
            yield held

    def give_up(self, digest: Digest) -> None:
        """Take a blob out of use whose file is gone or damaged, and every artifact that needs it.

        Raises `StoreVanishedError` where the whole store is gone, another `StoreError` where the disk does not let us
        move the file; the blob counts as missing even then.
        """
        self._directory.check_alive()
        with self._index.lock:
            # Looked at again under the lock: another thread may have put a good file in its place, or the row lies.
            data = self._file_bytes(digest)
            if data is not None and digest_of(data) == digest:
                with self._index.writing() as connection:
                    connection.execute("UPDATE blobs SET bytes = ? WHERE digest = ?", (len(data), digest))
                self._bad.discard(digest)
                return
            if data is not None:
                self._bad.add(digest)
                logger.warning("blob %s is damaged; it goes to quarantine", digest)
                with self._directory.failing_as("put a damaged blob into quarantine"):
                    self._quarantine.take(self._file_stores.blobs.path(digest))
            with self._index.reading() as connection:
                known = connection.execute("SELECT 1 FROM blobs WHERE digest = ?", (digest,)).fetchone()
            if known or data is not None:
                with self._index.writing() as connection:
                    delete_blob(connection, self._file_stores, digest)
                    if data is not None:
                        count_quarantined(connection)
            self._bad.discard(digest)

    def _found_damaged(self, digest: Digest) -> BlobDamagedError:
        """Set a damaged blob aside; return the error to raise. It is a miss even where its file cannot be moved."""
        try:
            self.give_up(digest)
        except StoreVanishedError:
            raise
        except StoreError as error:
            logger.warning("damaged blob %s could not be moved and stays as a miss: %s", digest, error)
        return BlobDamagedError(digest)

    def _file_bytes(self, digest: Digest) -> bytes | None:
        """Return the file's bytes, right or wrong; none where the disk cannot read them; None without a file."""
        with self._directory.failing_as("read a blob"):
            try:
                return self._file_stores.blobs.read(digest)
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno == errno.EIO:  # a bad sector: as damaged as a changed byte
                    return _UNREADABLE
                raise

    def _piece(self, file: BinaryIO, size: int) -> bytes:
        with self._directory.failing_as("read a blob"):
            try:
                return file.read(size)
            except OSError as error:
                if error.errno == errno.EIO:  # taken for the end of the file, so that the digest does not match
                    return b""
                raise

    def _take_back(self, digest: Digest) -> None:
        """Remove a file that the index could not be told of."""
        with suppress(StoreError, OSError), self._index.lock, self._index.reading() as connection:
            if not connection.execute("SELECT 1 FROM blobs WHERE digest = ?", (digest,)).fetchone():
                self._file_stores.blobs.remove(digest)
