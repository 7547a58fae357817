"""The command line, a module for each group of verbs.

Results on stdout, talk on stderr. Exit codes: 0 done; 1 failed, which a name that nothing has is, too; 2 wrong use; 130
interrupted. A list of nothing is done. Whatever goes wrong is one sentence that says what to do, and with `--json` also
one object on stdout. Verbs import what they need when they run: `status` must not pay for `serve`.
"""

from __future__ import annotations

import sys

# The verbs register themselves; `day` has their order.
from compiler_daemon.cli import (
    bundle,
    daemon,
    doctor,
    insight,
    inventory,
    keys,
    page,
    place,
    recompile,
    retention,
    service,
    settings,
    signers,
    tier,
    trainer,
    warm,
)
from compiler_daemon.cli.json_errors import asked_for_json, run_for_json
from compiler_daemon.cli.options import PROGRAM, cli, fail
from compiler_daemon.errors import DaemonError, UsageError

__all__ = [
    "bundle",
    "cli",
    "daemon",
    "doctor",
    "insight",
    "inventory",
    "keys",
    "page",
    "place",
    "recompile",
    "retention",
    "service",
    "settings",
    "signers",
    "tier",
    "trainer",
    "warm",
]


def run() -> None:
    """Run the command line and exit."""
    try:
        if asked_for_json(sys.argv[1:]):
            run_for_json(cli)
        else:
            cli(prog_name=PROGRAM)
    except UsageError as error:
        fail(error, code=2)
    except (DaemonError, OSError) as error:
        fail(error)
