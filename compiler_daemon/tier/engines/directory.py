"""A shared directory as a tier: `file:///DIR`, on whatever file system the nodes have in common.

Not through obstore's `LocalStore`: under the daemon's umask it makes directories and files that no other user can read,
it makes a directory anew that is not mounted any more, and a temporary file of a process that was killed is in none of
its listings. Here
- a file is for whom the directory is for: its mode, and a group that is inherited, are those of the root;
- the root is never made, so that the mount point of an absent file system is no empty tier;
- a file comes about under a temporary name and gets its own by `link`, which is exclusive, also over NFS, where an
  answer that got lost is told from another's file by the number of links;
- files are not forced to the disk by `fsync`. NFS hands them to its server at `close`. What a power cut leaves torn
  fails its signature, which is a miss; the artifact is in its daemon's own store, which does use `fsync`;
- a file system that hangs takes a few threads with it, which neither other work of the daemon nor its end waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

from compiler_daemon.errors import (
    TierDeniedError,
    TierError,
    TierFullError,
    TierMissingError,
    TierTimeoutError,
    TooLargeError,
)
from compiler_daemon.text.findings import Finding, note, ok, problem
from compiler_daemon.tier.engines.engine import EngineTimeouts, Stored, check_name, check_rights, check_size
from compiler_daemon.tier.engines.mounts import MOUNTS, late_misses, mount_of
from compiler_daemon.tier.engines.threads import HangingThreads

T = TypeVar("T")

LARGEST = 2 * 2**30
"""More than the wire lets an artifact have."""

_TEMPORARY = ".new-"
_STALE_S = 3600.0
"""A temporary file of this age belongs to nobody who still writes it."""

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DirectoryEngine:
    """A tier in a directory."""

    largest = LARGEST

    def __init__(self, root: Path, timeouts: EngineTimeouts | None = None) -> None:
        self._root = root
        self._timeouts = timeouts or EngineTimeouts()
        self._threads = HangingThreads("tier-directory")

    async def get(self, name: str, limit: int) -> bytes | None:
        path = self._path(name)
        return await self._done(lambda: self._read(path, limit), limit)

    async def begin(self, name: str, most: int) -> bytes | None:
        path = self._path(name)
        return await self._done(lambda: self._read(path, most, whole=False), most)

    async def create(self, name: str, data: bytes) -> bool:
        path = self._path(name)
        check_size(len(data), self.largest)
        return await self._done(lambda: self._write(path, data, exclusive=True), len(data))

    async def replace(self, name: str, data: bytes, *, lives_s: float | None = None) -> None:
        path = self._path(name)
        check_size(len(data), self.largest)
        await self._done(lambda: self._write(path, data, exclusive=False), len(data))

    async def delete(self, name: str) -> None:
        path = self._path(name)
        await self._done(lambda: path.unlink(missing_ok=True))

    async def touch(self, name: str) -> bool:
        path = self._path(name)
        await self._done(lambda: _touch(path))
        return True

    async def names(self, prefix: str) -> AsyncIterator[Stored]:
        folders = [self._path(prefix.rstrip("/"))]
        while folders:  # one folder a call: a tier may hold more names than one call has time for
            folder = folders.pop()
            inner, stored = await self._done(partial(self._listed, folder))
            folders += inner
            for each in stored:
                yield each

    async def check(self) -> list[Finding]:
        try:
            status = await self._done(self._root_status)
        except TierError as error:
            return [problem("tier", str(error))]
        found = [ok("tier", f"the directory {self._root}, mode {stat.S_IMODE(status.st_mode):o}")]
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            text = "every user may remove what is in it, though not forge it; `chmod o-w` or `chmod +t` hinders them"
            found = [note("tier", f"the directory {self._root}, mode {stat.S_IMODE(status.st_mode):o}: {text}")]
        with contextlib.suppress(OSError):
            mount = mount_of(self._root.resolve(), MOUNTS.read_text())
            if mount is not None and (late := late_misses(mount)):
                found.append(note("tier mount", late))
        return found + await check_rights(self)

    async def close(self) -> None:
        self._threads.close()

    async def _done(self, work: Callable[[], T], size: int = 0) -> T:
        try:
            async with asyncio.timeout(self._timeouts.of(size)):
                return await self._threads.run(work)
        except TimeoutError:
            raise TierTimeoutError(f"the directory {self._root} does not answer: is its file system there?") from None
        except OSError as error:
            self._raise(error)

    def _raise(self, error: OSError) -> NoReturn:
        words = error.strerror or str(error)
        where = error.filename or self._root
        if error.errno in _DENIED:
            raise TierDeniedError(f"{where} may not be used: {words}") from error
        if error.errno in _FULL:
            raise TierFullError(f"{where} has no room: {words}") from error
        raise TierError(f"{where}: {words}") from error

    def _path(self, name: str) -> Path:
        return self._root / check_name(name)

    def _root_status(self) -> os.stat_result:
        try:
            status = self._root.stat()
        except FileNotFoundError:
            text = "make it once, with the mode and group of those who share it; it is never made by a daemon"
            raise TierMissingError(f"there is no directory {self._root}: mount it, or {text}") from None
        if not stat.S_ISDIR(status.st_mode):
            raise TierMissingError(f"{self._root} is no directory: name another")
        return status

    def _read(self, path: Path, limit: int, *, whole: bool = True) -> bytes | None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            self._root_status()
            return None
        with open(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise TierError(f"{path} is no plain file: move it away")
            if not whole:
                return file.read(limit)
            if status.st_size > limit:
                raise TooLargeError(f"{path} has {status.st_size} bytes, and at most {limit} are read")
            data = bytearray()
            while piece := file.read(status.st_size + 1 - len(data)):
                data += piece
                if len(data) > status.st_size:
                    raise TierError(f"{path} grew while it was read: it is none of ours, move it away")
        return bytes(data)

    def _write(self, path: Path, data: bytes, *, exclusive: bool) -> bool:
        root = self._root_status()
        if exclusive and path.exists():
            return False  # spares the writing, and decides nothing
        self._make_folders(path.parent, root)
        temporary = path.with_name(f"{_TEMPORARY}{secrets.token_hex(8)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                with contextlib.suppress(PermissionError):  # some network file systems know no modes
                    os.fchmod(descriptor, stat.S_IMODE(root.st_mode) & 0o666)
            if not exclusive:
                os.replace(temporary, path)
                return True
            return _linked(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def _make_folders(self, folder: Path, root: os.stat_result) -> None:
        missing = []
        while folder != self._root and not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            with contextlib.suppress(FileExistsError):
                each.mkdir()
                # Whoever may reach the root may reach this, whatever this process's umask is.
                each.chmod(stat.S_IMODE(root.st_mode))

    def _listed(self, folder: Path) -> tuple[list[Path], list[Stored]]:
        inner, stored, now = [], [], time.time()
        for entry, status in _entries(folder):
            if stat.S_ISDIR(status.st_mode):
                inner.append(Path(entry.path))
            elif entry.name.startswith(_TEMPORARY):
                if now - status.st_mtime > _STALE_S:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)
            elif stat.S_ISREG(status.st_mode) and not entry.name.startswith("."):
                name = Path(entry.path).relative_to(self._root).as_posix()
                stored.append(Stored(name, status.st_size, max(0.0, now - status.st_mtime)))
        if not inner and not stored:
            self._root_status()
        return inner, stored


def _entries(folder: Path) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # another daemon cleans at the same time
                yield entry, entry.stat(follow_symlinks=False)


def _linked(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        # Over NFS a repeated request may be told so of the link that the first one made.
        return os.stat(temporary).st_nlink == 2
    return True


def _touch(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)
