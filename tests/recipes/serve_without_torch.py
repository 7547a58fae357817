"""Runs `compiler-daemon serve` as the guides do, with workers that only pretend to compile and record their jobs.

JOURNALS is a folder in which each daemon has a file, named after its job and node.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from compiler_daemon.config import DaemonConfig, DaemonLocation, PoolConfig, TierConfig
from compiler_daemon.serve import serve_config
from tests.daemon.daemon_process import FIELDS

_WORKER = Path(__file__).parents[1] / "daemon" / "fake_worker.py"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--drain-seconds", type=float, default=60.0)
    parser.add_argument("--tier", action="append", default=[])
    arguments = parser.parse_args()
    place = DaemonLocation.resolve(os.environ, directory=None, address=None)
    name = f"{os.environ.get('SLURM_JOB_ID', 'none')}-{os.environ.get('SLURMD_NODENAME', 'none')}"
    journal = Path(os.environ["JOURNALS"]) / name
    worker = ("-P", str(_WORKER), "--fields", json.dumps(FIELDS), "--journal", str(journal))
    serve_config(
        DaemonConfig(
            directory=place.directory,
            address=place.default_address,
            drain_s=arguments.drain_seconds,
            pool=PoolConfig(command=worker, max_workers=1),
            tier=TierConfig(places=tuple(arguments.tier)),
        ),
        verbose=False,
    )


if __name__ == "__main__":
    sys.exit(main())
