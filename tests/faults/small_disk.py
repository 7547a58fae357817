"""A real filesystem of a few megabytes, which a test can fill to the last byte."""

from __future__ import annotations

import errno
import functools
import os
import subprocess
import tempfile
from pathlib import Path

_FILLER = ".filler"
_CHUNK = bytes(64 * 1024)


@functools.cache
def can_mount() -> bool:
    """Return whether this user may mount a filesystem; a user who may not cannot have a full disk of their own."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            SmallDisk(Path(folder), mib=1).close()
        except (OSError, subprocess.CalledProcessError):
            return False
    return True


class SmallDisk:
    """A tmpfs mounted at `folder`, private to this user."""

    def __init__(self, folder: Path, *, mib: float) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        options = f"size={int(mib * 2**20)},mode=700,uid={os.geteuid()}"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True, capture_output=True, timeout=30
        )

    def fill(self) -> None:
        """Leave no byte free."""
        descriptor = os.open(self.folder / _FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            for chunk in (_CHUNK, b"\0"):
                while _written(descriptor, chunk):
                    pass
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Free the space again."""
        (self.folder / _FILLER).unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount, even if a process that is about to end still has a file open."""
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True, capture_output=True, timeout=30)


def _written(descriptor: int, chunk: bytes) -> bool:
    try:
        return os.write(descriptor, chunk) > 0
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return False
        raise
