"""A daemon that starts with the trainer: `TORCH_COMPILE_CLIENT=auto` has one started where none is there.

Guarantees: nothing here raises but `AbsentError`, and only where it was waited for; a trainer waits for a daemon that
starts for at most `ClientConfig.start_s`; of any number of trainers one gets to start it, which the daemon's own lock
decides. The daemon is nobody's child, and ends when nobody has used it for a while.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from compile_client.config import ClientConfig
from compile_client.errors import AbsentError, ClientError
from compile_client.transport.endpoint import UnixAddress, find_address, probe
from compile_wire.endpoint.presence import be_present

_IDLE = "1h"
_AGAIN_S = 60.0
"""A start that failed is not tried again before that."""
_SAID_BYTES = 4096


class DaemonStarter:
    """Starts a daemon in the background, at most one at a time. Safe to call from any thread."""

    def __init__(self, command: Callable[[ClientConfig], Sequence[str]]) -> None:
        self._command = command
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._begun_at = 0.0
        self._failed = ""
        self._failed_at = 0.0
        os.register_at_fork(after_in_child=self._forget)

    def begin(self, config: ClientConfig) -> None:
        """Begin to start a daemon, unless a start is under way, or has failed a moment ago."""
        with self._lock:
            if self._process is None and not (self._failed and time.monotonic() - self._failed_at < _AGAIN_S):
                self._failed, self._begun_at = "", time.monotonic()
                try:
                    self._process = subprocess.Popen(
                        [*self._command(config)],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.PIPE,
                    )
                except OSError as error:
                    self._note_failure(f"{error.strerror}")

    def wait(self, config: ClientConfig, timeout_s: float) -> None:
        """Return when a daemon was started; raise `AbsentError`, with why, where none was in time.

        All waits for one start together last `ClientConfig.start_s`: graphs that come later do not wait again.
        """
        self.begin(config)
        with self._lock:
            process, end = self._process, self._begun_at + config.start_s
        if process is not None:
            # Without the lock: other threads wait as long as their own graphs may, and not one after the other.
            try:
                code = process.wait(max(0.0, min(timeout_s, end - time.monotonic())))
            except subprocess.TimeoutExpired as error:
                waited_s = time.monotonic() - end + config.start_s
                raise AbsentError(f"a daemon that was started is not ready after {waited_s:.0f} s") from error
            self._note_end(process, code)
        with self._lock:
            if self._failed:
                raise AbsentError(f"no daemon could be started: {self._failed}")

    def _note_end(self, process: subprocess.Popen[bytes], code: int) -> None:
        """Note how a start ended, once: several threads may have waited for it."""
        with self._lock:
            if self._process is process:
                said = _said(process.stderr)
                self._process = None
                if code:
                    self._note_failure(said or f"exit code {code}")

    def _forget(self) -> None:
        """Begin anew in a forked child: a thread that is not there may hold the lock, and the start is another's."""
        self._lock = threading.Lock()
        self._process = None

    def _note_failure(self, text: str) -> None:
        self._failed, self._failed_at = text, time.monotonic()


def serve_command(config: ClientConfig) -> list[str]:
    """Return the command that returns when a daemon of the directory answers, whoever has started it."""
    command = [sys.executable, "-P", "-m", "compiler_daemon", "serve", "--detach", "--unless-running"]
    command += ["--dir", str(config.directory), "--idle", _IDLE, "--first-worker", sys.executable]
    return [*command, "--address", config.address] if config.address else command


starter = DaemonStarter(serve_command)
"""The process's one."""

_present: set[Path] = set()


def begin_where_absent(config: ClientConfig) -> None:
    """Begin to start a daemon where nobody answers; return at once."""
    with suppress(ClientError):  # found again, and said, when there is a graph
        address = find_address(config.address, config.directory)
        if isinstance(address, UnixAddress):
            try:
                probe(address, config.connect_s)
            except AbsentError:
                starter.begin(config)


def stay_present(directory: Path) -> None:
    """Keep a daemon that ends by itself for as long as this process lives."""
    if directory not in _present and be_present(directory):
        _present.add(directory)


def _said(stream: IO[bytes] | None) -> str:
    """Return the last line that a command said, without its name."""
    if stream is None:
        return ""
    with stream:
        lines = stream.read(_SAID_BYTES).decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("compiler-daemon: ") if lines else ""
