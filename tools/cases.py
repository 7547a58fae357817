"""Run small programs that a compile cache once got wrong, and write down their outcomes for this version of torch.

    python tools/cases.py RUN_PY SPEC... [--jobs 2] [--write]

`RUN_PY` is a script that runs each `SPEC` plainly, against a cold daemon and warm, in both orders, and begins its line
with `same` or `DIFFERS`. It is started with this interpreter, so that each version of torch has its own. With `--write`
the outcomes go to `docs/trust/cases.json`, from which docs/trust/twins.md has its table. Exit code 1 where one differs.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "trust" / "cases.json"


def main() -> int:
    """Run what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_py", type=Path)
    parser.add_argument("specs", nargs="+", metavar="SPEC")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with ThreadPoolExecutor(options.jobs) as pool:
        lines = list(pool.map(lambda spec: _run(options.run_py, spec), options.specs))
    outcomes = {spec: line.partition(" ")[0] for spec, line in zip(options.specs, lines, strict=True)}
    if options.write:
        runs = json.loads(_DOCUMENT.read_text()) if _DOCUMENT.exists() else {}
        run = runs.setdefault(version("torch"), {})
        run |= {"ended": f"{datetime.now(UTC):%Y-%m-%d}", "python": platform.python_version()}
        run["outcomes"] = dict(sorted({**run.get("outcomes", {}), **outcomes}.items()))
        _DOCUMENT.write_text(json.dumps(runs, indent=1, sort_keys=True) + "\n")
    return 0 if set(outcomes.values()) == {"same"} else 1


def _run(run_py: Path, spec: str) -> str:
    done = subprocess.run([sys.executable, str(run_py), spec], capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith(("same", "DIFFERS"))), "")
    line = line or f"FAILED {done.stderr[-500:]}"
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return line


if __name__ == "__main__":
    sys.exit(main())
