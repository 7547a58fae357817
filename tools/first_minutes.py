"""Writes docs/first-ten-minutes.md: from the wheel to an explanation, with what each command really answered.

    python tools/first_minutes.py            walks and writes docs/first-ten-minutes.md
    python tools/first_minutes.py --check    walks again; exit code 1 where the page is not what happens any more

The wheel is built from this checkout, which needs hatchling. It is installed into a fresh environment; torch, and what
else the package depends on, is lent by the environment that runs this.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from transcript import ROOT, TRAINER, Step, StepError, Walk, stop_daemon, write_or_check

from benches.harness.processes import run_bench

_INTRODUCTION = f"""# The first ten minutes

Made by `python tools/first_minutes.py`, which ran each of these commands at a terminal
of 80 columns; the tests run it again, so that it stays true. [The tour](tour.md) has
every verb. The trainer is a plain script that knows nothing of the daemon:

```python
{TRAINER}```
"""

_STEPS = (
    Step(
        "Install the wheel into the environment that has torch:",
        "pip install --quiet --no-deps --no-index compiler_daemon-*.whl\ncompiler-daemon --version",
    ),
    Step(
        "Run the trainer. No daemon is there, so one starts in the background, and compiles:",
        "compiler-daemon run -- python train.py 4,6",
    ),
    Step(
        "Run it again, as a fresh container would: with empty caches. It finds the daemon, and compiles nothing:",
        "export TORCHINDUCTOR_CACHE_DIR=~/empty TRITON_CACHE_DIR=~/empty/triton\n"
        "compiler-daemon run -- python train.py 4,6",
    ),
    Step("What that has saved:", "compiler-daemon stats"),
    Step(
        "Another size is another graph. It is compiled once, and `explain` says why it was not there:",
        "compiler-daemon run -- python train.py 10\ncompiler-daemon explain",
    ),
    Step(
        "That is all. The daemon ends an hour after its last trainer, or now:",
        "compiler-daemon stop",
    ),
)


def _environment(home: Path) -> Path:
    """Make an environment with pip, in which torch is lent, and the wheel beside it; return its folder."""
    place = home / ".venv"
    venv.create(place, with_pip=True, symlinks=True)
    [packages] = place.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(home)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise StepError(f"the wheel was not built: {done.stderr.strip()[-500:]}")
    return place


def _transcript(home: Path) -> str:
    place = _environment(home)
    own = {"PATH": f"{place / 'bin'}:{os.environ.get('PATH', os.defpath)}", "VIRTUAL_ENV": str(place)}
    walk = Walk(home, own)
    try:
        return "\n".join([_INTRODUCTION, *(walk.run(step) for step in _STEPS)])
    finally:
        if (place / "bin" / "compiler-daemon").exists():
            stop_daemon(walk)


def main() -> int:
    """Write the page, or compare it."""
    return write_or_check(ROOT / "docs" / "first-ten-minutes.md", _transcript, __doc__)


if __name__ == "__main__":
    run_bench(main)
