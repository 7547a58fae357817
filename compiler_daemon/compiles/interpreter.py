"""Which interpreter may be started for a client.

A client that has the token runs as the same user, so this is no wall against it; it keeps a mistake, or a path that
somebody else can write to, from being executed.
"""

from __future__ import annotations

import os
import stat

from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_NAME_TEXT
from compile_wire.plain import is_plain
from compiler_daemon.errors import JobRefusedError


def check_interpreter(path: str) -> str:
    """Return `path`, unresolved: a virtual environment's python is a symbolic link, and resolving it leaves the
    environment.

    Raises `MalformedError` where it is no absolute path, `JobRefusedError` where the file must not be started.
    """
    if len(path) > MAX_NAME_TEXT or not is_plain(path) or not os.path.isabs(path):
        raise MalformedError(f"an interpreter is named by an absolute path, not {path[:80]!r}")
    try:
        link, target = os.lstat(path), os.stat(path)
    except OSError as error:
        raise JobRefusedError("ENVIRONMENT", f"the interpreter {path} is not there: {error.strerror}") from error
    if not stat.S_ISREG(target.st_mode) or not os.access(path, os.X_OK):
        raise JobRefusedError("ENVIRONMENT", f"the interpreter {path} cannot be executed")
    if not {link.st_uid, target.st_uid} <= {os.geteuid(), 0} or target.st_mode & stat.S_IWOTH:
        raise JobRefusedError("ENVIRONMENT", f"the interpreter {path} belongs to, or can be changed by, another user")
    return path
