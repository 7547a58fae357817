"""Writing a blob in chunks: room is taken first, bytes are counted and hashed as they come, nothing half is seen."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from compile_wire.digest import Digest
from compile_wire.errors import DigestError, MalformedError
from compile_wire.limits import CHUNK_BYTES, MAX_BLOB_BYTES
from compiler_daemon.store.blobs import Blobs
from compiler_daemon.store.directory import Directory
from compiler_daemon.store.errors import BlobDamagedError, BlobMissingError
from compiler_daemon.store.files import Draft, FileStores
from compiler_daemon.store.pins import Pins
from compiler_daemon.store.space import SpaceQuota


class BlobWriter:
    """Writes one blob; a context manager. Leaving it without `commit` removes what was written.

    Not safe to share between threads, but its calls may come from different threads one after the other.
    """

    def __init__(
        self,
        directory: Directory,
        file_stores: FileStores,
        blobs: Blobs,
        quota: SpaceQuota,
        pins: Pins,
        digest: Digest,
        size: int,
    ) -> None:
        if not 0 <= size <= MAX_BLOB_BYTES:
            raise MalformedError(f"a blob has from 0 to {MAX_BLOB_BYTES} bytes, not {size}")
        self._directory = directory
        self._file_stores = file_stores
        self._blobs = blobs
        self._quota = quota
        self._pins = pins
        self._digest = digest
        self._size = size
        self._written = 0
        self._sha256 = hashlib.sha256()
        self._draft: Draft | None = None
        """None where the blob is stored already: then its bytes are checked and dropped."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._pins.pin([self._digest]))
            if not self._intact():
                stack.enter_context(self._quota.reserved(self._size))
                with self._directory.failing_as("begin a blob"):
                    self._draft = self._file_stores.blobs.draft()
                stack.callback(self._draft.discard)
            self._stack = stack.pop_all()
        return self

    def _intact(self) -> bool:
        """Return whether the blob is stored and undamaged: a new copy of a damaged one must not be thrown away."""
        if self._blobs.missing([self._digest]):
            return False
        try:
            for _ in self._blobs.chunks(self._digest, CHUNK_BYTES):
                pass
        except BlobMissingError:  # or damaged, and in quarantine now
            return False
        return True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def write(self, chunk: bytes) -> None:
        """Append a chunk; raise `DigestError` where there is more than was announced."""
        self._written += len(chunk)
        if self._written > self._size:
            raise DigestError(f"blob {self._digest[:12]} is longer than the {self._size} bytes announced")
        self._sha256.update(chunk)
        if self._draft is not None:
            with self._directory.failing_as("write a blob"):
                self._draft.write(chunk)

    def commit(self) -> bool:
        """Make the blob visible, durably; return whether it was new. Once, as the last call.

        Raises `DigestError` where size or digest are not those announced.
        """
        if self._written != self._size:
            raise DigestError(f"blob {self._digest[:12]} has {self._written} bytes, not the {self._size} announced")
        if self._sha256.hexdigest() != self._digest:
            raise DigestError(f"{self._size} bytes do not match their digest {self._digest[:12]}")
        if self._draft is not None:
            return self._blobs.place(self._draft, self._digest, self._size)
        if self._blobs.missing([self._digest]):
            raise BlobDamagedError(self._digest)  # found damaged since we began: the caller has to send it again
        return False
