"""Puts what the daemon sent where torch looks for it.

An entry goes into torch's own local cache, by torch's own function; objects go into a folder beside it under their
relocatable names, and from there to the places that torch asks for, when it asks. Nothing is ever loaded here.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import tempfile
import threading
from contextlib import suppress

from compile_client.errors import InstallError, UnsafeError
from compile_client.transport.messages import Artifact

_FOLDER = "compile_daemon"

_BUILD_BYTES = 20
_BUILD_NOTE = struct.pack("=3I4s", 4, _BUILD_BYTES, 3, b"GNU\0")
"""How the note with a build's number begins in an ELF file: lengths of its name and of the number, kind, and name."""


class Installer:
    """Puts the files of artifacts where torch looks.

    Safe to use from several threads, and from several processes on one cache directory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checked: set[str] = set()

    def install(self, artifact: Artifact, torch_key: str) -> list[str]:
        """Write the artifact's files; return the names of those that lay there damaged, and do so no more.

        Raises `InstallError` where it cannot be done.
        """
        from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache

        try:
            folder = self._folder()
            damaged = [
                blob.name
                for blob in artifact.manifest.blobs
                if blob.role == "object" and _write_once(os.path.join(folder, blob.name), artifact.blobs[blob.sha256])
            ]
            for blob in artifact.manifest.blobs:
                if blob.role == "entry":
                    AOTAutogradCache._write_to_local_cache(torch_key, artifact.blobs[blob.sha256])
        except OSError as error:
            raise InstallError(f"an artifact could not be written: {error}") from error
        return damaged

    def remove(self, torch_key: str) -> None:
        """Take what was installed for a graph out of torch's cache again; never raises."""
        from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache

        if torch_key:
            shutil.rmtree(AOTAutogradCache._get_tmp_dir_for_key(torch_key), ignore_errors=True)

    def place(self, name: str, path: str) -> bool:
        """Put the object `name` at `path`, where torch will load it from; return whether it is there."""
        source = os.path.join(self._folder(), name)
        if not os.path.exists(source):
            return False
        with suppress(FileExistsError):
            try:
                os.link(source, path)
            except OSError as error:
                if isinstance(error, FileExistsError):
                    raise
                with open(source, "rb") as file:  # a file system without hard links
                    _write_once(path, file.read())
        return True

    def _folder(self) -> str:
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        folder = os.path.join(cache_dir(), _FOLDER)
        with self._lock:
            if folder not in self._checked:
                os.makedirs(folder, mode=0o700, exist_ok=True)
                _check_private(folder)
                self._checked.add(folder)
        return folder


def _check_private(folder: str) -> None:
    """Raise where another user may have put files into the folder: what lies there will be loaded as code."""
    found = os.stat(folder, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise UnsafeError(f"{folder} belongs to another user, or others may write to it")


def _write_once(path: str, data: bytes) -> bool:
    """Write a file, unless it is there byte for byte; return whether what was there must have been damaged.

    It will be loaded as code, and a machine that lost its power may have kept name and length but not the bytes. One of
    another length, or of another run of the linker, may be as good: another virtual environment's path in it, or
    another worker's build.
    """
    damaged = False
    with suppress(FileNotFoundError), open(path, "rb") as file:
        there = file.read(len(data) + 1)
        if there == data:
            return False
        damaged = len(there) == len(data) and _build(there) in {b"", _build(data)}
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".installing-")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o700)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return damaged


def _build(data: bytes) -> bytes:
    """Return the number that the linker gave an object, a digest of what it linked; empty where it has none."""
    at = data.find(_BUILD_NOTE)
    return data[at + len(_BUILD_NOTE) :][:_BUILD_BYTES] if at >= 0 else b""
