"""A daemon in the background: started apart from the terminal, and waited for until it answers.

Guarantees: whoever is told an address can call there. A daemon that is not ready in time is ended, and what it said is
told. Whatever it says later is in `DIR/log/daemon.log`.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from compiler_daemon.access.directory import DirectoryLock, prepare_directory
from compiler_daemon.admin.answers import DaemonState
from compiler_daemon.admin.connection import OperatorClient
from compiler_daemon.config import DaemonLocation
from compiler_daemon.errors import DaemonError, NotRunningError, StartError, UsageError

LOG_NAME = "daemon.log"
_LOG_BYTES = 4 * 2**20
"""A longer log is put aside at the next start."""
_READY = "ready "
_TOLD_BYTES = 4096
_LOOK_S = 0.1
_ANSWER_S = 5.0
_WRONG_USE = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensured:
    """Says where a daemon answers, and whether it was started for that."""

    address: str
    pid: int
    started: bool


def log_path(directory: Path) -> Path:
    """Return the file in which a detached daemon of this directory says what it has to say."""
    return directory / "log" / LOG_NAME


def start_detached(directory: Path, arguments: Sequence[str], *, wait_s: float = 60.0) -> str:
    """Start `compiler-daemon serve` with these arguments, apart from this process; return its address once it answers.

    Raises `StartError`, with what the daemon said, where it does not come up.
    """
    prepare_directory(directory)
    log = log_path(directory)
    try:
        log.parent.mkdir(mode=0o700, exist_ok=True)
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        errors: IO[bytes] = open(log, "ab")  # noqa: SIM115  # closed below, once the daemon has it
    except OSError as error:
        raise StartError(f"{log} cannot be written: {error.strerror}") from error
    command = [sys.executable, "-m", "compiler_daemon", "serve", *arguments]
    if sys.path[0] not in ("", os.getcwd()):
        command.insert(1, "-P")
    with errors:
        begin = errors.tell()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=dict(os.environ),  # and nothing that is meant for this process alone
            start_new_session=True,
        )
    try:
        address = _address(process, wait_s)
    except BaseException:
        _end(process)
        raise
    if address:
        # It goes on without us, and is nobody's to wait for.
        process.returncode = 0
        return address
    code = process.poll()
    _end(process)
    said = _said(log, begin)
    if code is None:
        raise StartError(f"the daemon was not ready within {wait_s:g} s, and was ended; {log} has what it said")
    kind = UsageError if code == _WRONG_USE else StartError
    raise kind(said or f"the daemon ended with exit code {code}; {log} has what it said")


def ensure_daemon(place: DaemonLocation, arguments: Sequence[str], *, wait_s: float = 60.0) -> Ensured:
    """Return when a daemon of a place answers: the one that serves there, else one that is started.

    However many ask at the same time, one daemon starts. Raises `StartError` where none comes up.
    """
    lock, end = DirectoryLock(place.directory), time.monotonic() + wait_s
    while True:
        if (state := _answering(place)) is not None:
            return Ensured(address=state.address, pid=state.pid, started=False)
        if not lock.is_held():
            try:
                address = start_detached(place.directory, arguments, wait_s=max(1.0, end - time.monotonic()))
            except StartError:
                if not lock.is_held():  # else somebody else was faster, and that one's daemon is as good
                    raise
            else:
                return Ensured(address=address, pid=lock.holder() or 0, started=True)
        if time.monotonic() >= end:
            raise StartError(
                f"a process serves {place.directory} already, and did not answer within {wait_s:g} s: "
                "`compiler-daemon stop` ends it"
            )
        time.sleep(_LOOK_S)


def wait_for_daemon(place: DaemonLocation, wait_s: float) -> None:
    """Return when the daemon of a place answers; raise `NotRunningError` where none does in time."""
    end = time.monotonic() + wait_s
    while True:
        try:
            with OperatorClient.of(place) as operator:
                operator.status()
        except NotRunningError as error:
            if time.monotonic() >= end:
                raise NotRunningError(f"{error} (waited {wait_s:g} s)") from error
            time.sleep(_LOOK_S)
        else:
            return


def _answering(place: DaemonLocation) -> DaemonState | None:
    """Return the state of a daemon that takes work; None where there is none, or it is about to end."""
    try:
        with OperatorClient.of(place, call_s=_ANSWER_S) as operator:
            state = operator.status()
    except UsageError:
        raise
    except DaemonError:
        return None
    return None if state.draining else state


def _address(process: subprocess.Popen[bytes], wait_s: float) -> str:
    """Return the address that the daemon prints; empty where it ends, or says nothing, first."""
    assert process.stdout is not None
    end, text = time.monotonic() + wait_s, b""
    with process.stdout, selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not text.endswith(b"\n") and (left := end - time.monotonic()) > 0:
            if selector.select(left):
                chunk = os.read(process.stdout.fileno(), _TOLD_BYTES)
                if not chunk:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(left)
                    break
                text += chunk
    line = text.decode(errors="replace").strip()
    return line.removeprefix(_READY) if line.startswith(_READY) else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _said(log: Path, begin: int) -> str:
    """Return the sentence with which a daemon ended, without the name of the program."""
    with contextlib.suppress(OSError), open(log, "rb") as file:
        file.seek(begin)
        lines = file.read(_TOLD_BYTES).decode(errors="replace").splitlines()
        for line in reversed(lines):
            if line.startswith("compiler-daemon: "):
                return line.removeprefix("compiler-daemon: ")
    return ""
