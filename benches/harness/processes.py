"""The processes that a bench starts: they end with it, also when it is killed.

On Linux the kernel sends a child its signal once the thread that started it has ended, so children are started from the
main thread. Elsewhere a bench takes its children along where it ends by itself, by an error, or by SIGTERM.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, NoReturn

_PR_SET_PDEATHSIG = 1
# Loaded here: a process that has just been forked must not look for a library.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

Stream = int | IO[bytes] | None
"""As `subprocess.Popen` takes it."""


def run_bench(main: Callable[[], int]) -> NoReturn:
    """Run a bench and exit with its code; SIGTERM ends it as an error would, so that it cleans up."""
    signal.signal(signal.SIGTERM, _leave)
    sys.exit(main())


def start_child(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: Stream = None,
    stderr: Stream = None,
    death_signal: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start a program that gets `death_signal` when this process has ended, however it ended."""
    if (setpriv := shutil.which("setpriv")) is not None and shutil.which(command[0]) is not None:
        # A fork of a process in which gRPC has threads runs its handlers in the child, and these may abort it.
        wrapped = [setpriv, "--pdeathsig", death_signal.name.removeprefix("SIG"), "--", *command]
        return subprocess.Popen(wrapped, env=env, stdout=stdout, stderr=stderr)
    parent = os.getpid()
    with warnings.catch_warnings():
        # Of threads that the child does not have: what it does before it becomes the program needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        return subprocess.Popen(
            command,
            env=env,
            stdout=stdout,
            stderr=stderr,
            preexec_fn=lambda: _end_with(parent, death_signal),  # noqa: PLW1509 - one system call, looked up before
        )


def run_child(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdout: Stream = None,
    stderr: Stream = None,
    timeout_s: float | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end as `start_child` starts it. Raises `subprocess.TimeoutExpired`; it is killed then."""
    with start_child(command, env=env, stdout=stdout, stderr=stderr) as process:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def run_with_parent(parent: int, target: Callable[..., None], *arguments: Any) -> None:
    """Call `target` in a process of `multiprocessing`, which ends with the process numbered `parent`."""
    _end_with(parent, signal.SIGKILL)
    target(*arguments)


def _end_with(parent: int, death_signal: signal.Signals) -> None:
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:  # it ended before the system knew
            os._exit(1)


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)
