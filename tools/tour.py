"""Writes docs/tour.md: every verb used once, in the order in which a newcomer would, with what it really answered.

    python tools/tour.py            runs the tour against a daemon of its own and writes docs/tour.md
    python tools/tour.py --check    runs it again; exit code 1 where docs/tour.md is not what happens any more

`transcript.py` says what both pages made of commands have in common; `first_minutes.py` makes the other one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from transcript import ROOT, TRAINER, Step, StepError, Walk, stop_daemon, write_or_check

from benches.harness.processes import run_bench

_SERVE = "compiler-daemon serve --store-size 1GiB"
"""With so small a store `doctor` finds room for it on every disk on which the tests can run."""

_INTRODUCTION = f"""# A tour of every verb

Made by `python tools/tour.py`, which ran each of these commands at a terminal of 80
columns; the tests run it again, so that it stays true. [The first ten
minutes](first-ten-minutes.md) are shorter. The trainer is a plain script that knows
nothing of the daemon:

```python
{TRAINER}```

The daemon runs in another terminal, as `{_SERVE}`. Every verb has
`--help` with an example, and every verb that reports has `--json`.
"""

_BEFORE = (
    Step("Without a daemon, `status` says what to do:", "compiler-daemon status", 1),
    Step(
        "A trainer does not care; it says so once and compiles by itself:",
        "TORCH_COMPILE_CLIENT=1 python train.py 4",
    ),
)
_STEPS = (
    Step(
        f"Now `{_SERVE}` runs in the other terminal. The first run has its graphs compiled by the daemon:",
        "TORCH_COMPILE_CLIENT=1 python train.py 4,6",
    ),
    Step(
        "The second process has empty caches of its own, and builds nothing:",
        "export TORCHINDUCTOR_CACHE_DIR=~/another TRITON_CACHE_DIR=~/another/triton\n"
        "TORCH_COMPILE_CLIENT=1 python train.py 4,6",
    ),
    Step("What the daemon does now:", "compiler-daemon status"),
    Step("Where its files are, and how it is set:", "compiler-daemon dir\ncompiler-daemon config | head -n 8"),
    Step("What it keeps:", "compiler-daemon ls"),
    Step(
        "One graph, as code with shapes (any beginning of an id that means one thing will do):",
        "compiler-daemon show FIRST",
    ),
    Step(
        "A new batch size is a new graph. Why was it not there?",
        "export TORCHINDUCTOR_CACHE_DIR=~/third TRITON_CACHE_DIR=~/third/triton\n"
        "TORCH_COMPILE_CLIENT=1 python train.py 10\ncompiler-daemon explain",
    ),
    Step("What all of this has cost and saved:", "compiler-daemon stats"),
    Step(
        "Before a sweep: have all of it compiled. The trainer is run once for each cell, and does not compile:",
        "compiler-daemon warm --matrix size=12,14 --jobs 1 -- python train.py {size}",
    ),
    Step(
        "The sweep itself then compiles nothing:",
        "export TORCHINDUCTOR_CACHE_DIR=~/sweep TRITON_CACHE_DIR=~/sweep/triton\n"
        "TORCH_COMPILE_CLIENT=1 python train.py 12,14",
    ),
    Step(
        "Artifacts for another machine of the same kind, signed:",
        "compiler-daemon export sweep.bundle --program train.py",
    ),
    Step("What of it would fit here, without storing anything:", "compiler-daemon import sweep.bundle --dry-run"),
    Step("Graphs alone are data: small, and nobody has to trust them:", "compiler-daemon export sweep.graphs --graphs"),
    Step("Artifacts are removed (the graphs stay) ...", "compiler-daemon rm --all --yes"),
    Step("... and made again from the graphs, without any trainer:", "compiler-daemon replay sweep.graphs"),
    Step("What is pinned is never evicted:", "compiler-daemon pin FIRST\ncompiler-daemon ls --pinned"),
    Step("It may go again:", "compiler-daemon unpin FIRST"),
    Step("The web page, for one browser and one minute:", "compiler-daemon page"),
    Step("What a collection would remove now:", "compiler-daemon gc --dry-run"),
    Step("Is anything wrong?", "compiler-daemon doctor"),
    Step(
        "Keys for trainers on other machines:",
        "compiler-daemon keys init --host gpu-box.example\ncompiler-daemon keys show",
    ),
    Step("The end of the day; running compiles are finished first:", "compiler-daemon stop"),
)
_AFTER = (
    Step(
        "Without a daemon, `run` starts one, which ends by itself when nobody uses it:",
        "export TORCHINDUCTOR_CACHE_DIR=~/last TRITON_CACHE_DIR=~/last/triton\n"
        "compiler-daemon run -- python train.py 5",
    ),
    Step("It logs into a file:", "compiler-daemon logs | grep serves"),
    Step("Everything that daemons have written is removed:", "compiler-daemon clean --yes --keys"),
)


@contextlib.contextmanager
def _daemon(walk: Walk) -> Iterator[None]:
    command = [walk.program(), *_SERVE.split()[1:]]
    with (walk.home / "serve.log").open("w") as log:
        process = subprocess.Popen(command, env=walk.environment, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        if not process.stdout.readline().startswith("ready "):
            raise StepError((walk.home / "serve.log").read_text())
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(90)
        process.stdout.close()


def _transcript(home: Path) -> str:
    own = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'proto'}",
    }
    walk = Walk(home, own)
    parts = [_INTRODUCTION, *(walk.run(step) for step in _BEFORE)]
    with _daemon(walk):
        parts += [walk.run(step) for step in _STEPS]
    try:
        parts += [walk.run(step) for step in _AFTER]
    finally:
        stop_daemon(walk)
    return "\n".join(parts)


def main() -> int:
    """Write the page, or compare it."""
    return write_or_check(ROOT / "docs" / "tour.md", _transcript, __doc__)


if __name__ == "__main__":
    run_bench(main)
