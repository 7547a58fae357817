"""torch's header, compiled beforehand by a worker that has seen nobody's graph, and lent to all that come later.

Compiling it takes longer than most graphs. torch keeps it in TMPDIR and believes what lies there, so each worker's is
its own; what is lent lies where workers cannot write. torch names the file by everything that decides about it, so that
one of another compiler or torch is not taken.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

VARIABLE = "COMPILER_DAEMON_HEADERS"

_PATTERN = "torchinductor_*/precompiled_headers"
"""Below a TMPDIR; in the middle is the user's name as torch writes it."""
_SUFFIXES = (".gch", ".h")
_MAX_KEPT = 4
"""Headers of so many environments stay; each has about 150 MiB."""


def lend(kept: Path, into: Path) -> None:
    """Let torch, which looks in `into`, find what is kept. Best effort: torch makes what it does not find."""
    with contextlib.suppress(OSError):
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in kept.iterdir():
            if path.suffix in _SUFFIXES and not (into / path.name).exists():
                (into / path.name).symlink_to(path)


def is_kept(kept: Path, environment: str) -> bool:
    """Return whether a header of the environment was kept once."""
    return (kept / f"{environment}.kept").exists()


def keep(temporary: Path, kept: Path, environment: str) -> int:
    """Take over what a worker has made in its TMPDIR; return how many files. Raises `OSError`.

    Only from a worker that never had a job: what is here goes into everybody's kernels.
    """
    kept.mkdir(mode=0o700, exist_ok=True)
    made = [path for path in temporary.glob(f"{_PATTERN}/*") if path.suffix in _SUFFIXES and not path.is_symlink()]
    for path in sorted(made, key=lambda path: _SUFFIXES.index(path.suffix)):  # the source last: torch goes by it
        os.replace(path, kept / path.name)
    (kept / f"{environment}.kept").touch(mode=0o600)
    compiled = sorted(kept.glob("*.gch"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in compiled[_MAX_KEPT:]:
        path.unlink(missing_ok=True)
        path.with_suffix("").unlink(missing_ok=True)
    if compiled[_MAX_KEPT:]:  # whose they were nobody knows: those of other environments are made again, if need be
        for path in kept.glob("*.kept"):
            if path.stem != environment:
                path.unlink(missing_ok=True)
    return len(made)
