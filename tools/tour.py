"""Writes docs/tour.md: every verb used once, in the order in which a newcomer would, with what it really answered.

    python tools/tour.py            runs the tour against a daemon of its own and writes docs/tour.md
    python tools/tour.py --check    runs it again; exit code 1 where docs/tour.md is not what happens any more

Nothing of the user's is touched: the tour has its own home, daemon and caches in a temporary folder, and every process
it starts has ended when it returns. Two transcripts are the same where they differ only in numbers, ids and alignment;
how many graphs were compiled and served stays part of the comparison (`_KEPT`).
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benches.harness.processes import run_bench

_ROOT = Path(__file__).resolve().parent.parent
_PAGE = _ROOT / "docs" / "tour.md"
_COMMAND = str(Path(sys.executable).with_name("compiler-daemon"))
_STEP_S = 400.0
_HOME = "/home/you"
"""What the tour's temporary home is called in the transcript."""

_TRAINER = """\
import sys

import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.GELU(), torch.nn.Linear(32, 8))
step = torch.compile(model, dynamic=False)
for size in map(int, sys.argv[1].split(",")):
    loss = step(torch.randn(size, 8)).square().mean()
    loss.backward()
    print(f"batch {size}: loss {loss.item():.4f}")
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the tour, and the words before it."""

    words: str
    command: str
    code: int = 0
    """The exit code that it must have."""


_INTRODUCTION = f"""# A tour of every verb

Made by `python tools/tour.py`, which ran each of these commands; the tests run it again, so that it stays true. The
trainer is a plain script that knows nothing of the daemon:

```python
{_TRAINER}```

The daemon runs in another terminal, as `compiler-daemon serve`. Every verb has `--help` with an example, and every
verb that reports has `--json`.
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
        "Now `compiler-daemon serve` runs in the other terminal. The first run has its graphs compiled by the daemon:",
        "TORCH_COMPILE_CLIENT=1 python train.py 4,6",
    ),
    Step(
        "The second process has empty caches of its own, and builds nothing:",
        "export TORCHINDUCTOR_CACHE_DIR=~/another TRITON_CACHE_DIR=~/another/triton\n"
        "TORCH_COMPILE_CLIENT=1 python train.py 4,6",
    ),
    Step("What the daemon does now:", "compiler-daemon status"),
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
    Step("The web page is there for a daemon that was started with `--page-port`:", "compiler-daemon page", 1),
    Step("What a collection would remove now:", "compiler-daemon gc --dry-run"),
    Step("Is anything wrong?", "compiler-daemon doctor"),
    Step(
        "Keys for trainers on other machines:",
        "compiler-daemon keys init --host gpu-box.example\ncompiler-daemon keys show",
    ),
    Step("The end of the day; running compiles are finished first:", "compiler-daemon stop"),
)


class TourError(Exception):
    """A step went otherwise than it must."""


class Tour:
    """The temporary home and what runs in it."""

    def __init__(self, home: Path) -> None:
        self._home = home
        (home / "train.py").write_text(_TRAINER)
        (home / "tmp").mkdir()
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "LC_ALL", "CXX"}}
        self._environment = kept | {
            "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', os.defpath)}",
            "PYTHONPATH": f"{_ROOT}:{_ROOT / 'proto'}",
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "COLUMNS": "110",
            "NO_COLOR": "1",
            "TERM": "dumb",
        }

    def transcript(self) -> str:
        """Run all of it; return the page."""
        parts = [_INTRODUCTION]
        parts += [self._run(step) for step in _BEFORE]
        with self._daemon():
            parts += [self._run(step) for step in _STEPS]
        return "\n".join(parts)

    def _run(self, step: Step) -> str:
        command = step.command
        if "FIRST" in command:
            command = command.replace("FIRST", self._first())
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            cwd=self._home,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_STEP_S,
            check=False,
        )
        stdout = done.stdout.replace(str(self._home), _HOME).replace(str(_ROOT), f"{_HOME}/compile-daemon")
        said = "\n".join(_lines(stdout))
        if done.returncode != step.code:
            raise TourError(f"{step.command!r} ended with {done.returncode}, not {step.code}:\n{said}")
        shown = "\n".join(f"$ {line}" for line in command.splitlines())
        return f"{step.words}\n\n```console\n{shown}\n{said}\n```\n"

    def _first(self) -> str:
        """Return the beginning of the newest artifact's id."""
        listed = subprocess.run(
            [_COMMAND, "ls", "--json"],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found = re.search(r'"digest": ?"([0-9a-f]{64})"', listed.stdout)
        if not found:
            raise TourError(f"`ls --json` lists no artifact: {listed.stdout[:300]}")
        return found[1][:8]

    @contextlib.contextmanager
    def _daemon(self) -> Iterator[None]:
        with (self._home / "serve.log").open("w") as log:
            process = subprocess.Popen(
                [_COMMAND, "serve"], env=self._environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert process.stdout is not None
        try:
            if not process.stdout.readline().startswith("ready "):
                raise TourError((self._home / "serve.log").read_text())
            yield
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(90)
            process.stdout.close()


_SHIFTING = re.compile(r"^compile daemon: graph \d+ \(|^\s*$")
"""Lines that come as often as a wait is long."""


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if not _SHIFTING.match(line)]


_KEPT = re.compile(r"\b(\d+) (graphs?|from the daemon's store|compiled by the daemon|compiled here)\b")


_OF_THE_MACHINE = re.compile(r"^(compiler|cpu_capability|cpu_flags|libc|python|system|torch|torch_key|triton) .*")
"""Lines of `show` that say on which machine the tour was made."""


def _likeness(page: str) -> list[str]:
    """Return the page without what is another number each time."""
    lines = []
    for line in page.splitlines():
        text = _KEPT.sub(lambda match: f"{chr(64 + min(26, int(match[1])))}\x00 {match[2]}", line)
        text = _OF_THE_MACHINE.sub(r"\1 ...", text)
        text = re.sub(r"\b[0-9a-f]{6,64}\b", "ID", text)
        text = re.sub(r"\ba[a-z2-7]{15}(?:[a-z2-7]{36})?\b", "KEY", text)
        text = re.sub(r"\d+([.,:]\d+)*", "N", text)
        text = re.sub(r"\bjust now\b|\bN (min|h|d) ago\b", "AGO", text)
        text = re.sub(r"\bN (min N s|h N min|d N h)\b", "N", text)
        text = re.sub(r"N ?(s|ms|min|h|d|[kKMG]?i?B|bytes?|seconds?|minutes?)\b", "N", text)
        text = re.sub(r"[─━═]+", "─", text)
        text = re.sub(r"\s+", " ", text).strip()
        if text:
            lines.append(text)
    return lines


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with docs/tour.md instead of writing it")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="tour-"))
    try:
        page = Tour(home).transcript()
    except TourError as error:
        print(f"tour: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if not arguments.check:
        _PAGE.write_text(page)
        return 0
    difference = list(
        difflib.unified_diff(_likeness(_PAGE.read_text()), _likeness(page), "docs/tour.md", "now", lineterm="")
    )
    if difference:
        print("\n".join(difference))
        print(
            "docs/tour.md is not what happens any more: look at the difference, then run python tools/tour.py",
            file=sys.stderr,
        )
    return 1 if difference else 0


if __name__ == "__main__":
    run_bench(main)
