"""Serving as a process that has forgotten the command line.

What reads options (typer, pydantic, rich) stays in memory as long as its process lives, which for a daemon is for ever.
So `serve` hands its settings over and becomes a fresh interpreter, with the same process number.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle  # only for settings that this very process wrote a moment ago
import signal
import sys
from typing import NoReturn

from compiler_daemon.config import DaemonConfig
from compiler_daemon.errors import DaemonError, UsageError

_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(4 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(8 * 2**20)}
"""For glibc, which reads them once, at a process's start. By itself it gives the memory of an answer of some hundred
kilobytes back to the system after each call, and has the pages zeroed and mapped again for the next: a quarter of the
daemon's time for a lookup. With these it keeps up to 8 MiB."""

_SWITCH_S = 0.0005
"""For how long a thread may keep the interpreter while others wait for it; Python's own is ten times as long. An answer
lets go of it some dozens of times (each row of SQLite's is one), and while another thread reads a large graph, it waits
so long each time to have it back."""


_HELD_BACK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that wait until a starting daemon can end as it should; `serve_config` lets them in."""


def become_daemon(config: DaemonConfig, *, verbose: bool) -> NoReturn:
    """Replace this process by one that serves with these settings. It returns where the platform cannot: by serving."""
    if hasattr(os, "memfd_create"):
        # Memory without a name, which only this process has: settings may be secret, and arguments are not.
        settings = os.memfd_create("settings", 0)
        os.write(settings, pickle.dumps((config, verbose)))
        os.lseek(settings, 0, os.SEEK_SET)
        # The arguments after the number are read by nobody but people who look at the list of processes.
        arguments = ["-m", "compiler_daemon.serve", str(settings), *sys.argv[1:]]
        if sys.path[0] not in ("", os.getcwd()):
            arguments.insert(0, "-P")
        sys.stdout.flush()
        sys.stderr.flush()
        environment = _ALLOCATOR | os.environ  # what the user says of it counts
        # Until the daemon handles them: an interrupt while it imports would be a traceback.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD_BACK)
        os.execve(sys.executable, [sys.executable, *arguments], environment)  # noqa: S606  # no shell is wanted
    serve_config(config, verbose=verbose)
    raise SystemExit(0)


def serve_config(config: DaemonConfig, *, verbose: bool = False) -> None:
    """Serve with these settings until stopped; whatever goes wrong is one sentence and an exit code."""
    from compile_wire import tracing
    from compiler_daemon.app import serve
    from compiler_daemon.rpc.access_log import GRPC_LOGGER, is_no_left_client
    from compiler_daemon.store import StoreError
    from compiler_daemon.text.log_format import DAEMON_FORMAT, handler
    from compiler_daemon.text.sentence import sentence

    sys.setswitchinterval(_SWITCH_S)
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler(DAEMON_FORMAT)])
    logging.getLogger("asyncio").setLevel(logging.INFO)
    logging.getLogger(GRPC_LOGGER).addFilter(is_no_left_client)
    tracing.set_up("compile-daemon")
    try:
        asyncio.run(serve(config, on_ready=_say_ready))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (DaemonError, StoreError, OSError) as error:
        sys.stderr.write(f"compiler-daemon: {sentence(error)}\n")
        raise SystemExit(2 if isinstance(error, UsageError) else 1) from None


def main() -> None:
    """Serve with the settings in the file whose number is argument one."""
    for name, value in _ALLOCATOR.items():  # read by now; workers have other habits than the daemon
        if os.environ.get(name) == value:
            del os.environ[name]
    with open(int(sys.argv[1]), "rb") as file:
        config, verbose = pickle.load(file)  # noqa: S301  # ours: see `become_daemon`
    serve_config(config, verbose=verbose)


def _say_ready(address: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it any more
        sys.stdout.write(f"ready {address}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
