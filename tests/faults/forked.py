"""Trainers as forks of a process that has imported torch, but has compiled nothing.

The import takes half of a short trainer's processor time. Each fork has caches, an environment and a client of its own;
`compile_client.install()` switches the client on after the fork, as in a trainer that calls it. As a program, this
module is the process that forks. With `learning` it also imports whatever of torch earlier forks have imported, and
remembers what torch's probes of the processor and of its own sources have found.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.conftest import Outcome, clean_environment

_LEARNED = "FORKED_LEARNED"
"""The variable with the file in which forks write what they have imported."""
_LEARNABLE = ("torch.", "sympy.", "mpmath.", "setuptools", "distutils", "jaraco", "more_itertools", "packaging")
_KILLING_S = 30.0
"""How long a trainer that was killed past its limit may take to end."""


class ForkServer:
    """Starts trainers as forks; several threads may use it."""

    def __init__(self, temporary: Path, folder: Path, *, learning: bool = False, **environment: str) -> None:
        learn = {_LEARNED: str(folder / "learned"), "TORCHINDUCTOR_CACHE_DIR": str(temporary / "probes")}
        self._folder = folder
        self._count = 0
        self._changed = threading.Condition()
        self._codes: dict[int, int] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forked"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(TMPDIR=str(temporary), **environment, **(learn if learning else {})),
        )
        threading.Thread(target=self._hear, daemon=True).start()

    def run(
        self, script: str, arguments: Sequence[str], environment: dict[str, str], limit_s: float, *, served: bool = True
    ) -> Outcome:
        """Run a trainer to its end, with the client on if it is `served`. It is killed when its time is up."""
        with self._changed:
            self._count += 1
            number = self._count
            out, err = self._folder / f"{number}.out", self._folder / f"{number}.err"
            order = {"number": number, "script": script, "arguments": list(arguments), "environment": environment}
            order |= {"served": served, "limit_s": limit_s, "out": str(out), "err": str(err)}
            assert self._process.stdin
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            started = time.monotonic()
            ended = self._changed.wait_for(lambda: number in self._codes, limit_s + _KILLING_S)
        seconds = time.monotonic() - started
        assert ended, f"nothing was heard of the trainer's end:\n{err.read_text()}"
        code = self._codes[number]
        assert code != -signal.SIGKILL or seconds < limit_s, f"the trainer hung:\n{err.read_text()}"
        report = Path(environment.get("TORCH_COMPILE_CLIENT_REPORT", os.devnull))
        return Outcome(
            code,
            out.read_text().splitlines(),
            err.read_text(),
            seconds,
            report.parent,
            json.loads(report.read_text()) if report.is_file() else {},
        )

    def close(self) -> None:
        """End the process that forks; the forks that are left end with it."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _hear(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            number, code = json.loads(line)
            with self._changed:
                self._codes[number] = code
                self._changed.notify_all()


def serve() -> None:
    """Fork a trainer for each line of standard input, and report each end on standard output."""
    import torch._inductor.compile_fx  # all trainers need this, and importing it compiles nothing

    assert torch
    learned = Path(os.environ[_LEARNED]) if _LEARNED in os.environ else None
    if learned:
        _probe()
    children: dict[int, tuple[int, float]] = {}
    pending = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.05)
        if ready:
            data = os.read(0, 1 << 20)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                if learned:
                    _import_learned(learned)
                if not (pid := os.fork()):
                    _be_trainer(order, learned)
                children[pid] = (order["number"], time.monotonic() + order["limit_s"])
        for pid, (number, limit) in list(children.items()):
            if time.monotonic() > limit:
                os.kill(pid, signal.SIGKILL)
            if (found := os.waitpid(pid, os.WNOHANG))[0]:
                del children[pid]
                os.write(1, (json.dumps([number, os.waitstatus_to_exitcode(found[1])]) + "\n").encode())
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _probe() -> None:
    """Find out once what every process finds out anew: the instruction sets that work, and the digest of torch."""
    from torch._inductor.codecache import torch_key
    from torch._inductor.cpu_vec_isa import valid_vec_isa_list

    valid_vec_isa_list()
    torch_key()


def _import_learned(learned: Path) -> None:
    names = learned.read_text().split() if learned.exists() else []
    for name in names:
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # what cannot be imported by its name alone is left to the forks
                importlib.import_module(name)


def _tell_imports(learned: Path, before: set[str]) -> None:
    names = [name for name in sys.modules if name not in before and name.startswith(_LEARNABLE)]
    if names:
        with learned.open("a") as file:
            file.write("\n".join(names) + "\n")


def _be_trainer(order: dict[str, object], learned: Path | None) -> None:
    code = 1
    before = set(sys.modules)
    try:
        for descriptor, name in ((1, "out"), (2, "err")):
            file = os.open(str(order[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(order["environment"])  # type: ignore[call-overload]
        sys.argv = [str(order["script"]), *order["arguments"]]  # type: ignore[misc]
        sys.path.insert(0, str(Path(sys.argv[0]).parent))
        if order["served"]:
            import compile_client

            assert compile_client.install()
        runpy.run_path(str(order["script"]), run_name="__main__")
        code = 0
    except BaseException:  # noqa: BLE001 - as at the end of a script
        traceback.print_exc()
    finally:
        if learned:
            _tell_imports(learned, before)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
