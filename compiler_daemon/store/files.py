"""Files named by digests, in 256 folders a kind, written so that a crash leaves a whole file or none.

Guarantees: a file appears under its name only after its bytes have reached the disk (fsync, then rename), and `put`
returns only after its name has, too (fsync of the folder). What a crash leaves lies in `incoming/` until the next start
removes it. Names are not checked against contents here; see `blobs` and `record_files`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from compile_wire.digest import Digest

_NAME = re.compile(r"[0-9a-f]{64}")
_numbers = count()
"""Tells apart the drafts of one process; another process cannot hold the store's lock at the same time."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a listing says of a file. A file is written once, so the time tells whether it was written anew."""

    bytes: int
    modified_ns: int


class Draft:
    """Writes one file: beside the store first, then renamed into it."""

    def __init__(self, incoming: Path) -> None:
        self._path = incoming / f"{os.getpid()}-{next(_numbers)}"
        self._handle: int | None = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        assert self._handle is not None
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._handle, rest) :]

    def sync(self) -> Found:
        """Bring the bytes to the disk and close the file; return what a listing will say of it."""
        assert self._handle is not None
        os.fsync(self._handle)
        found = _found(os.fstat(self._handle))
        self._close()
        return found

    def rename_to(self, path: str) -> None:
        """Give the file its name; only after `sync`."""
        assert self._handle is None
        os.replace(self._path, path)

    def discard(self) -> None:
        """Remove the file where it has not been renamed. Never raises: the next start removes what is left."""
        try:
            self._close()
            self._path.unlink(missing_ok=True)
        except OSError:
            return

    def _close(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)


class FileStore:
    """Keeps the files of one kind.

    Safe to call from any thread; the order of concurrent calls on one name is the caller's.
    """

    def __init__(self, root: Path, kind: str) -> None:
        self._folder = root / kind
        self._incoming = root / "incoming"
        self._prefix = f"{self._folder}/"
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def path(self, name: Digest) -> str:
        """Return where the file is or would be."""
        return f"{self._prefix}{name[:2]}/{name}"

    def draft(self) -> Draft:
        """Begin a file."""
        return Draft(self._incoming)

    def place(self, draft: Draft, name: Digest) -> None:
        """Give a synced draft its name, in place of a file that has it already. Not durable before `sync`."""
        try:
            draft.rename_to(self.path(name))
        except FileNotFoundError:
            if not self._folder.is_dir():
                raise
            (self._folder / name[:2]).mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._prefix)
            draft.rename_to(self.path(name))

    def sync(self, name: Digest) -> None:
        """Bring the name to the disk."""
        sync_folder(f"{self._prefix}{name[:2]}")

    def put(self, name: Digest, data: bytes) -> Found:
        """Write a whole file, durably; return what a listing will say of it."""
        draft = self.draft()
        try:
            draft.write(data)
            found = draft.sync()
            self.place(draft, name)
        except BaseException:
            draft.discard()
            raise
        self.sync(name)
        return found

    def read(self, name: Digest) -> bytes:
        """Return the file's bytes as they are; raise `FileNotFoundError` where there is none."""
        handle = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(handle).st_size
            data = os.read(handle, size)
            while len(data) < size and (piece := os.read(handle, size - len(data))):
                data += piece  # the first call may hand out less than it was asked for
        finally:
            os.close(handle)
        return data

    def size(self, name: Digest) -> int | None:
        """Return the file's size; None where there is none."""
        try:
            return os.stat(f"{self._prefix}{name[:2]}/{name}").st_size
        except FileNotFoundError:
            return None

    def remove(self, name: Digest) -> None:
        """Remove the file where there is one. The removal need not survive a power cut; `sync` makes it."""
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            return

    def listing(self) -> dict[Digest, Found]:
        """Return every file that has a digest for a name and lies where it should; others are not ours."""
        found = {}
        with os.scandir(self._folder) as folders:
            for folder in folders:
                if len(folder.name) != 2 or not folder.is_dir(follow_symlinks=False):
                    continue
                with os.scandir(folder.path) as files:
                    for file in files:
                        if _NAME.fullmatch(file.name) and file.name[:2] == folder.name:
                            found[Digest(file.name)] = _found(file.stat(follow_symlinks=False))
        return found


class FileStores:
    """Holds a store's files, by kind."""

    def __init__(self, root: Path) -> None:
        self.incoming = root / "incoming"
        self.incoming.mkdir(mode=0o700, exist_ok=True)
        self.blobs = FileStore(root, "blobs")
        self.artifacts = FileStore(root, "artifacts")
        self.graphs = FileStore(root, "graphs")
        self.requests = FileStore(root, "requests")
        self.environments = FileStore(root, "environments")
        self.facts = FileStore(root, "facts")
        sync_folder(str(root))

    def clear_incoming(self) -> int:
        """Remove what interrupted writes left; return how many files. Only while nothing is being written."""
        left = list(self.incoming.iterdir())
        for path in left:
            path.unlink()
        return len(left)


def _found(status: os.stat_result) -> Found:
    return Found(status.st_size, status.st_mtime_ns)


def sync_folder(path: str) -> None:
    """Bring a folder's names to the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
