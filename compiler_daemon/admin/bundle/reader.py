"""Reading a file: form first, then the signature, then every item against its digest."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from compile_wire.digest import Digest
from compile_wire.errors import MalformedError, SignatureError
from compile_wire.limits import CHUNK_BYTES
from compile_wire.signature import secret_fingerprint, verify_bundle
from compiler_daemon.admin.bundle.index import (
    LENGTH_BYTES,
    MAGIC,
    MAX_INDEX_BYTES,
    SIGNATURE_BYTES,
    TAIL_BYTES,
    Index,
    Kind,
    checksum,
    decode_index,
)
from compiler_daemon.errors import BundleError

STDIN = Path("-")


class Bundle:
    """Reads a bundle: an open file whose index was read and checked for form. A context manager."""

    def __init__(self, file: IO[bytes], index: Index, items: Mapping[Digest, tuple[int, int]], raw: bytes) -> None:
        """Use `open`."""
        self._file = file
        self._items = items
        self._raw, self._signature = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
        self.index = index

    @classmethod
    def open(cls, path: Path, *, kind: Kind) -> Bundle:
        """Open a file, or what a stream brings; raise `BundleError` where it is not one of this kind that is whole.

        Nothing is verified yet but the form: see `verify_signature` and `verify_items`.
        """
        with ExitStack() as scope:
            try:
                file = scope.enter_context(_open(path))
                raw, begin = _read_index(file, path)
                index, items = decode_index(raw[:-SIGNATURE_BYTES], begin)
            except OSError as error:
                raise BundleError(f"{path} cannot be read: {error.strerror}") from error
            except MalformedError as error:
                raise BundleError(f"{path} is damaged: {error}") from error
            if index.kind != kind:
                raise BundleError(f"{path} is a file of {index.kind}, not of {kind}: {_READERS[index.kind]}")
            if not index.secret and raw[-SIGNATURE_BYTES:] != checksum(raw[:-SIGNATURE_BYTES]):
                raise BundleError(f"{path} is damaged: its index is not what was written")
            scope.pop_all()
        return cls(file, index, items, raw)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def verify_signature(self, secret: bytes) -> None:
        """Raise `BundleError` unless the owner of this secret made the index."""
        try:
            ours = secret_fingerprint(secret)
        except SignatureError as error:
            raise BundleError(f"{error}: name a daemon's file `secret`") from error
        if self.index.secret != ours:
            raise BundleError(
                f"the bundle was made by a daemon with another secret ({self.index.secret or 'none'}, ours is {ours}): "
                "if you trust it, name that daemon's secret with --secret-file"
            )
        try:
            verify_bundle(secret, self._signature, index=self._raw)
        except SignatureError as error:
            raise BundleError("the bundle was changed after it was signed: fetch it again") from error

    def verify_items(self) -> None:
        """Read the whole file once; raise `BundleError` where an item does not match its digest."""
        for digest in self._items:
            for _ in self.chunks(digest):
                pass

    def size(self, digest: Digest) -> int | None:
        """Return an item's size; None where the file does not hold it."""
        found = self._items.get(digest)
        return found[1] if found is not None else None

    def read(self, digest: Digest, *, max_bytes: int) -> bytes:
        """Return an item; raise `BundleError` where it is not there, larger, or damaged."""
        size = self.size(digest)
        if size is None or size > max_bytes:
            raise BundleError(f"item {digest[:12]} is missing or too large: the bundle was not made by this program")
        return b"".join(self.chunks(digest))

    def chunks(self, digest: Digest) -> Iterator[bytes]:
        """Yield an item; raise `BundleError`, before the last chunk is handed out, where it is damaged."""
        if digest not in self._items:
            raise BundleError(f"item {digest[:12]} is missing: the bundle was not made by this program")
        begin, size = self._items[digest]
        sha256, left = hashlib.sha256(), size
        while True:
            self._file.seek(begin + size - left)
            chunk = self._file.read(min(left, CHUNK_BYTES))
            sha256.update(chunk)
            left -= len(chunk)
            if (left and not chunk) or (not left and sha256.hexdigest() != digest):
                raise BundleError(f"item {digest[:12]} is damaged: fetch the file again")
            yield chunk
            if not left:
                return


_READERS = {
    "artifacts": "`compiler-daemon import` reads it",
    "graphs": "`compiler-daemon replay` compiles what is in it",
}


def _open(path: Path) -> IO[bytes]:
    """Open a file that can be rewound: what comes in as a stream is kept in a file without a name first."""
    with ExitStack() as scope:
        stream = sys.stdin.buffer if path == STDIN else scope.enter_context(open(path, "rb"))
        if stream.seekable():
            scope.pop_all()
            return stream
        kept: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # handed out open
        shutil.copyfileobj(stream, kept)
        return kept


def _read_index(file: IO[bytes], path: Path) -> tuple[bytes, int]:
    """Return the index, its signature, and where the index begins."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        raise BundleError(f"{path} is no file of `compiler-daemon export`")
    if end < len(MAGIC) + TAIL_BYTES:
        raise BundleError(f"{path} is cut short: fetch it again")
    file.seek(end - TAIL_BYTES)
    tail = file.read(TAIL_BYTES)
    if not tail.endswith(MAGIC):
        raise BundleError(f"{path} is cut short, or something was added to it: fetch it again")
    length = int.from_bytes(tail[SIGNATURE_BYTES : SIGNATURE_BYTES + LENGTH_BYTES], "big")
    begin = end - TAIL_BYTES - length
    if length > MAX_INDEX_BYTES or begin < len(MAGIC):
        raise BundleError(f"{path} is damaged: its index has {length} bytes")
    file.seek(begin)
    return file.read(length) + tail[:SIGNATURE_BYTES], begin
