"""The programs `compiler-daemon` and `python`, as a cluster's nodes find them on their PATH."""

from __future__ import annotations

import os
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PYTHONPATH = os.environ.get("PYTHONPATH") or f"{REPOSITORY}:{REPOSITORY / 'proto'}"
"""Where a job's programs find the product: in this checkout, unless the caller names another place."""

_PYTHON = """#!/bin/sh
exec {python} "$@"
"""

_DAEMON = """#!/bin/sh
{serve}
exec {python} -m compiler_daemon "$@"
"""

_FAKE_SERVE = 'if [ "$1" = serve ]; then shift; exec {python} -m tests.recipes.serve_without_torch "$@"; fi'


def put_programs(folder: Path, *, with_torch: bool) -> Path:
    """Write both programs into `folder` and return it; without torch the daemon's workers only pretend to compile."""
    folder.mkdir()
    serve = "" if with_torch else _FAKE_SERVE.format(python=sys.executable)
    for name, text in (("python", _PYTHON), ("compiler-daemon", _DAEMON)):
        (folder / name).write_text(text.format(python=sys.executable, serve=serve))
        (folder / name).chmod(0o755)
    return folder
