"""Checks of `doctor` of environment variables: each that means something is read as the program it is for reads it."""

from __future__ import annotations

import difflib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from compiler_daemon.config import sandbox_mode
from compiler_daemon.errors import DaemonError
from compiler_daemon.farm.address import farm_of
from compiler_daemon.text.findings import Finding, ok, problem
from compiler_daemon.tier.address import tier_places

VARIABLES = frozenset(
    "TORCH_COMPILE_CLIENT TORCH_COMPILE_CLIENT_TIMEOUT TORCH_COMPILE_CLIENT_HEDGE TORCH_COMPILE_CLIENT_READONLY "
    "TORCH_COMPILE_CLIENT_ASYNC TORCH_COMPILE_CLIENT_WARM TORCH_COMPILE_CLIENT_WARM_STEPS TORCH_COMPILE_CLIENT_VERIFY "
    "TORCH_COMPILE_CLIENT_REPORT TORCH_COMPILE_CLIENT_EXPLAIN TORCH_COMPILE_CLIENT_WITHOUT "
    "TORCH_COMPILE_CLIENT_SKIP_TRACE TORCH_COMPILE_CLIENT_LOG "
    "COMPILER_DAEMON_DIR COMPILER_DAEMON_ADDRESS COMPILER_DAEMON_CONFIG COMPILER_DAEMON_SANDBOX "
    "COMPILER_DAEMON_WORKER_VARIABLES COMPILER_DAEMON_TIER COMPILER_DAEMON_TIER_PASSWORD "
    "COMPILER_DAEMON_TIER_PASSWORD_FILE COMPILER_DAEMON_FARM COMPILER_DAEMON_FARM_CA COMPILER_DAEMON_FARM_CERTIFICATE "
    "COMPILER_DAEMON_FARM_KEY".split()
)
"""As `docs/settings.md` has them; a test holds the two together."""

_BEGINNINGS = ("TORCH_COMPILE_CLIENT", "COMPILER_DAEMON_")
_READ_S = 20.0

# The client's own reader, in a process of its own: daemon and client never import each other.
_READER = (
    "import json, sys; from compile_client.config import ClientConfig as C; "
    "json.dump(C.from_environment(json.load(sys.stdin)).complaints, sys.stdout)"
)


def check_variables(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Check the names and values of all variables of ours; one `ok` where there is nothing to say."""
    found = [*_names(environ), *_daemons(environ), *_clients(environ)]
    yield from found or [ok("variables", "every variable of client and daemon that is set can be read")]


def _names(environ: Mapping[str, str]) -> Iterator[Finding]:
    for name in sorted(environ):
        if name.startswith(_BEGINNINGS) and name not in VARIABLES:
            near = difflib.get_close_matches(name, VARIABLES, 1)
            meant = f": is {near[0]} meant?" if near else ": unset it"
            yield problem("variables", f"{name[:80]} means nothing to client or daemon{meant}")


def _daemons(environ: Mapping[str, str]) -> Iterator[Finding]:
    readers: tuple[Callable[[], Any], ...] = (
        lambda: sandbox_mode(environ),
        lambda: tier_places([], environ),
        lambda: farm_of(environ, address=None, ca=None, certificate=None, key=None, wait_s=1.0),
    )
    for read in readers:
        try:
            read()
        except DaemonError as error:
            yield problem("variables", f"`serve` would not start: {error}")


def _clients(environ: Mapping[str, str]) -> Iterator[Finding]:
    ours = {name: value for name, value in environ.items() if name in VARIABLES or name in ("HOME", "XDG_CACHE_HOME")}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _READER],
            input=json.dumps(ours),
            capture_output=True,
            text=True,
            timeout=_READ_S,
            check=False,
        )
        complaints = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return  # that the client is not installed, or not whole, is said by other checks
    for complaint in complaints:
        yield problem("variables", str(complaint))
