"""On what file system a directory is, and what its mount should be told for a tier: read from the kernel's list."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

MOUNTS = Path("/proc/self/mountinfo")

_SEEING_ALL = ("lookupcache=pos", "lookupcache=positive", "lookupcache=none")


class Mount(NamedTuple):
    """One line of the list."""

    point: str
    kind: str
    options: tuple[str, ...]


def mount_of(path: Path, listed: str) -> Mount | None:
    """Return the mount that holds a path; None where the list does not tell."""
    found: Mount | None = None
    for line in listed.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) < 6 or len(rest) < 2:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        # Of several at one point the last is the one that is seen.
        if path.is_relative_to(point) and (found is None or len(point) >= len(found.point)):
            found = Mount(point, rest[0], (*fields[5].split(","), *(rest[2].split(",") if len(rest) > 2 else ())))
    return found


def late_misses(mount: Mount) -> str:
    """Return why a node may go on seeing a miss for a while after another has shared, and what helps; else nothing."""
    if not mount.kind.startswith("nfs") or any(option in _SEEING_ALL for option in mount.options):
        return ""
    return (
        f"{mount.point} is NFS, whose clients remember for up to a minute that a file was not there: nodes that wait "
        "for an artifact see it late; mount it with `lookupcache=positive`"
    )
