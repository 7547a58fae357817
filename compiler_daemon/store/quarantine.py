"""Where damaged files, and manifests of disputed artifacts, go: out of every reader's way, kept for a person, bounded.

A damaged file is evidence (of a dying disk, or of somebody's hand), so it is moved, not deleted, until room is short.
"""

from __future__ import annotations

import os
from pathlib import Path


class Quarantine:
    """Sets damaged files aside in a folder of their own. Callers hold the index's lock."""

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._folder = root / "quarantine"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._max_bytes = max_bytes

    def take(self, path: str) -> None:
        """Move the file here; it may have been taken already. The oldest make room for it."""
        name = os.path.basename(path)
        number = 0
        while (target := self._folder / f"{name}.{number}").exists():
            number += 1
        try:
            os.rename(path, target)
        except FileNotFoundError:
            return
        self._trim(keep=target)

    def keep(self, name: str, content: bytes) -> None:
        """Keep the content of something that is removed elsewhere."""
        target = self._folder / name
        target.write_bytes(content)
        self._trim(keep=target)

    def _trim(self, keep: Path) -> None:
        kept = 0
        files = sorted(((file.stat().st_ctime_ns, file) for file in self._folder.iterdir()), reverse=True)
        for _, file in files:
            kept += file.stat().st_size
            if kept > self._max_bytes and file != keep:
                file.unlink()
