"""What the pages made of real commands share: a home of their own, a terminal of 80 columns, and what two of them are
compared by.

Nothing of the user's is touched: home, daemon and caches are in a temporary folder, and every process that was started
has ended when a page is made. Two transcripts are the same where they differ only in numbers, ids and alignment; how
many graphs were compiled and served stays part of the comparison (`_KEPT`).
"""

from __future__ import annotations

import argparse
import difflib
import fcntl
import os
import re
import secrets
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 80
_STEP_S = 400.0
_HOME = "/home/you"
"""What the temporary home is called in a transcript."""

TRAINER = """\
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
    """One command, and the words before it."""

    words: str
    command: str
    code: int = 0
    """The exit code that it must have."""


class StepError(Exception):
    """A step went otherwise than it must."""


class Walk:
    """A temporary home, in which commands are run as at a terminal of 80 columns."""

    def __init__(self, home: Path, environment: Mapping[str, str]) -> None:
        """`environment` is added to what every walk has."""
        self.home = home
        (home / "train.py").write_text(TRAINER)
        (home / "tmp").mkdir()
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "LC_ALL", "CXX"}}
        self.environment = kept | {
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "COLUMNS": str(COLUMNS),
            "NO_COLOR": "1",
            "TERM": "dumb",
            **environment,
        }

    def run(self, step: Step) -> str:
        """Run a step; return its part of the page. Raises `StepError` where its exit code is another one."""
        command = step.command
        if "FIRST" in command:
            command = command.replace("FIRST", self._first())
        code, said = self._at_terminal(command)
        said = said.replace(str(self.home), _HOME).replace(str(ROOT), f"{_HOME}/compile-daemon")
        shown = [part for line in _lines(said) for part in _folded(line)]
        if code != step.code:
            raise StepError(f"{step.command!r} ended with {code}, not {step.code}:\n{said}")
        typed = [f"$ {line}" for line in command.splitlines()]
        return "\n".join([step.words, "", "```console", *typed, *shown, "```", ""])

    def program(self) -> str:
        """Return the program that a step means."""
        found = shutil.which("compiler-daemon", path=self.environment["PATH"])
        if found is None:
            raise StepError("compiler-daemon is not installed in the environment that runs this")
        return found

    def _at_terminal(self, command: str) -> tuple[int, str]:
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
        said: list[bytes] = []

        def read() -> None:
            try:
                while data := os.read(ours, 65536):
                    said.append(data)
            except OSError:  # nobody has the other end any more
                return

        reader = threading.Thread(target=read)
        reader.start()
        try:
            done = subprocess.run(
                ["/bin/bash", "-c", command],
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                timeout=_STEP_S,
                check=False,
            )
        finally:
            os.close(theirs)
            reader.join(10)
            os.close(ours)
        return done.returncode, b"".join(said).decode(errors="replace").replace("\r\n", "\n")

    def _first(self) -> str:
        """Return the beginning of the newest artifact's id."""
        listed = subprocess.run(
            [self.program(), "ls", "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found = re.search(r'"digest": ?"([0-9a-f]{64})"', listed.stdout)
        if not found:
            raise StepError(f"`ls --json` lists no artifact: {listed.stdout[:300]}")
        return found[1][:8]


def stop_daemon(walk: Walk) -> None:
    """End a daemon that a step has started and no step has ended."""
    subprocess.run(
        [walk.program(), "stop", "--now"], env=walk.environment, capture_output=True, timeout=120, check=False
    )


def write_or_check(page: Path, make: Callable[[Path], str], document: str | None) -> int:
    """Write a page, or compare it with what is made now; return the exit code."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the page instead of writing it")
    arguments = parser.parse_args()
    home = _short_home()
    try:
        made = make(home)
    except StepError as error:
        print(f"{page.name}: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if not arguments.check:
        page.write_text(made)
        return 0
    difference = list(difflib.unified_diff(_likeness(page.read_text()), _likeness(made), page.name, "now", lineterm=""))
    if difference:
        print("\n".join(difference))
        print(f"{page} is not what happens any more: look at the difference, then make it again", file=sys.stderr)
    return 1 if difference else 0


def _short_home() -> Path:
    """Make a folder whose path, below /tmp, is as long as what a transcript calls it: lines break as they do there."""
    while True:
        home = Path(tempfile.gettempdir()) / secrets.token_hex(2)
        try:
            home.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return home


_SHIFTING = re.compile(r"^compile daemon: graph \d+ \(|^\s*$")
"""Lines that come as often as a wait is long."""


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if not _SHIFTING.match(line)]


def _folded(line: str) -> list[str]:
    """Return a line as a page can show it: a terminal would break it in the middle of a word."""
    if len(line) <= COLUMNS:
        return [line]
    return textwrap.wrap(line, COLUMNS, subsequent_indent="    ", break_on_hyphens=False)


_KEPT = re.compile(r"\b(\d+) (graphs?|from the daemon's store|compiled by the daemon|compiled here)\b")


_OF_THE_MACHINE = re.compile(r"^(compiler|cpu_capability|cpu_flags|libc|python|system|torch|torch_key|triton) .*")
"""Lines of `show` that say on which machine the tour was made."""


_GOES_ON = re.compile(r"^ {8,}\S")
"""A line in which a cell of a table goes on, where a terminal is too narrow for it."""


def _likeness(page: str) -> list[str]:
    """Return the page without what is another number each time; of what commands said, the words one by one.

    Where a line breaks depends on how long numbers and paths are.
    """
    lines: list[str] = []
    is_said = is_of_the_machine = False
    for line in page.splitlines():
        if line.startswith("```"):
            is_said = line == "```console"
        if is_of_the_machine and _GOES_ON.match(line):
            continue
        is_of_the_machine = bool(_OF_THE_MACHINE.match(line))
        if text := _without_numbers(line):
            lines += text.split() if is_said else [text]
    return lines


def _without_numbers(line: str) -> str:
    text = _KEPT.sub(lambda match: f"{chr(64 + min(26, int(match[1])))}\x00 {match[2]}", line)
    text = _OF_THE_MACHINE.sub(r"\1 ...", text)
    text = re.sub(r"(http://127\.0\.0\.1:\d+/)\S*", r"\1...", text)
    # A kernel's key is another on another processor.
    text = re.sub(r"\bk?[0-9a-f]{6,64}\b", "ID", text)
    text = re.sub(r"\ba[a-z2-7]{15}(?:[a-z2-7]{36})?\b", "KEY", text)
    text = re.sub(r"\d+([.,:]\d+)*", "N", text)
    text = re.sub(r"\bjust now\b|\bN (min|h|d) ago\b", "AGO", text)
    text = re.sub(r"\bN (min N s|h N min|d N h)\b", "N", text)
    text = re.sub(r"N ?(s|ms|min|h|d|[kKMG]?i?B|bytes?|seconds?|minutes?)\b", "N", text)
    text = re.sub(r"\bheaders, ?", "", text)  # a folder that is there once a worker has had nothing to do for a while
    text = re.sub(r"[─━═]+", "─", text)
    return re.sub(r"\s+", " ", text).strip()
