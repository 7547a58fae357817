"""Ending a daemon: by its own call where it answers, else by a signal to the process that holds the directory's lock.

Guarantees: it returns. What holds the lock is told so by the kernel; a number in a file alone is never signalled.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from compiler_daemon.access.directory import DirectoryLock
from compiler_daemon.admin.connection import OperatorClient
from compiler_daemon.config import DaemonLocation
from compiler_daemon.errors import DaemonError, NotRunningError

_SILENT_S = 3.0
"""A daemon that starts or ends answers nobody for a moment, and one whose socket was removed makes it again."""
_CALL_S = 5.0
_LOOK_S = 0.05


def end_daemon(place: DaemonLocation, *, now: bool = False, wait_s: float = 90.0) -> str:
    """Have the daemon of a directory end, and wait for it; return what a person should know, which may be nothing.

    With `now` its compiles are handed back. Raises `DaemonError` where it cannot be told, or has not ended in time.
    """
    lock = DirectoryLock(place.directory)
    told, said = _tell(place, lock)
    if told and now:
        told = _signal(lock)
    if not told:
        return said
    if wait_s and not _gone(lock, wait_s):
        raise DaemonError(
            f"{_name(lock)} has not ended within {wait_s:g} s; it gives running compiles the time that "
            "`serve --drain-seconds` said. Wait longer with --timeout, or hand them back with --now"
        )
    return said


def _tell(place: DaemonLocation, lock: DirectoryLock) -> tuple[bool, str]:
    """Tell the daemon to end; return whether there was one to be told, and what to say."""
    end, met = time.monotonic() + _SILENT_S, lock.is_held()
    while True:
        try:
            with OperatorClient.of(place, call_s=_CALL_S) as operator:
                operator.shutdown()
        except DaemonError as error:
            if not lock.is_held():
                if isinstance(error, NotRunningError):
                    return False, "the daemon was stopping already" if met else f"nothing to stop: {error}"
                raise
            if time.monotonic() >= end:
                return _signal(lock), f"{_name(lock)} does not answer; it was told to stop by a signal"
            time.sleep(_LOOK_S)
        else:
            return True, ""


def _signal(lock: DirectoryLock) -> bool:
    """Send the holder of the lock what ends a daemon; return whether there is one still."""
    holder = lock.holder()
    if holder is None:
        if not lock.is_held():
            return False
        raise DaemonError("a process that cannot be seen from here serves this directory: stop it in its own container")
    with contextlib.suppress(ProcessLookupError):
        os.kill(holder, signal.SIGTERM)
    return True


def _gone(lock: DirectoryLock, within_s: float) -> bool:
    end = time.monotonic() + within_s
    while lock.is_held():
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_S)
    return True


def _name(lock: DirectoryLock) -> str:
    holder = lock.holder()
    return f"process {holder}" if holder else "the daemon"
