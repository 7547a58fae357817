"""What one check of `doctor` found, and the check of a file's or directory's owner and mode."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    level: Level
    check: str
    text: str


ok, note, problem = partial(Finding, "ok"), partial(Finding, "note"), partial(Finding, "problem")


def check_private(
    path: Path, check: str, mode: int, *, size: int | None = None, made_by: str = "`compiler-daemon serve`"
) -> Finding:
    """A directory or file of ours alone; what is in a file is not looked at."""
    try:
        status = path.stat() if check == "directory" else path.lstat()
    except FileNotFoundError:
        return problem(check, f"{path} does not exist: {made_by} makes it")
    except OSError as error:
        return problem(check, f"{path} cannot be looked at ({error.strerror}): choose another --dir")
    if not (stat.S_ISDIR if check == "directory" else stat.S_ISREG)(status.st_mode):
        kind = "directory" if check == "directory" else "plain file"
        return problem(check, f"{path} is no {kind}: move it away, then start the daemon again")
    if status.st_uid != (user := os.geteuid()):
        return problem(check, f"{path} belongs to user {status.st_uid}, not to user {user}: choose another --dir")
    actual, mend = stat.S_IMODE(status.st_mode), f"`chmod {mode:o} {path}`"
    if actual & 0o022:
        return problem(check, f"others may write to {path} (mode {actual:o}): look at what is in it, then {mend}")
    if actual & 0o077:
        return problem(check, f"others can read {path} (mode {actual:o}): {mend}, or move it away if it may be known")
    if size is not None and status.st_size != size:
        return problem(check, f"{path} has {status.st_size} bytes, not {size}: move it away and start the daemon again")
    if status.st_size == 0 and check != "directory":
        return problem(check, f"{path} is empty: move it away and start the daemon again")
    return ok(check, f"{path}, mode {actual:o}, yours alone")
