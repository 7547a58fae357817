"""A stage on which twins run: two daemons, one for each order, and processes with empty caches."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from tests.e2e.conftest import Daemon, Lab, Outcome, with_probes
from tests.faults.forked import ForkServer
from tests.twins.compilers import remembering_compiler
from tests.twins.program import text_of
from tests.twins.thing import PHASES, Phase, Twins

Order = Literal["AB", "BA"]
"""The program that comes first on a daemon; each order has a daemon of its own."""
_TELLING = Path(__file__).with_name("telling.py")
_LIMIT_S = 240.0
_PASSIVE = {"OMP_WAIT_POLICY": "passive"}
"""With this, threads that wait leave the processor to other programs."""
COUNTERS = ("graphs", "hits", "hits_local", "compiled_by_daemon", "compiled_here")


@dataclass(frozen=True)
class Run:
    """The outcome of one process."""

    phase: Phase
    way: str
    code: int
    last: str
    """The last line of the output: everything that the program computed."""
    places: dict[str, dict[str, Any]]
    """How far each place raised the client's counters."""
    errors: str
    counters: dict[str, Any]
    """The client's counters; empty if it was off."""
    seconds: float


class Stage:
    """Runs programs, also from several threads at once. One daemon for each order serves the pairs of all threads."""

    def __init__(
        self, folder: Path, temporary: Path, *, workers: int = 1, weaken: str = "", skip_traces: bool = False
    ) -> None:
        """`folder` needs a short name, for the sockets in it; `temporary` must have been through `with_probes`.

        With `weaken`, client and workers leave that part out of what keeps programs apart. With `skip_traces`, programs
        take each other's traces where those fit.
        """
        folder.mkdir(mode=0o700, parents=True)
        (folder / "forks").mkdir()
        self.folder = folder
        self._variables = remembering_compiler(temporary / "compiler")
        self._variables |= {"COMPILE_DAEMON_TEST_WEAKEN": weaken} if weaken else {}
        self._skipping = {"TORCH_COMPILE_CLIENT_SKIP_TRACE": "1"} if skip_traces else {}
        self._lock, self._starting = threading.Lock(), threading.Lock()
        self._count = 0
        with contextlib.ExitStack() as closing:
            self._lab = Lab(folder, temporary, healthy=False)
            closing.callback(self._lab.close)
            self._daemons: dict[Order, Daemon] = {}
            self._daemon_arguments = ("--workers", str(workers))
            self._forks = ForkServer(temporary, folder / "forks", learning=True, **self._variables)
            closing.callback(self._forks.close)
            self._closing = closing.pop_all()

    @classmethod
    def prepared(
        cls,
        folder: Path,
        *,
        workers: int = 1,
        weaken: str = "",
        skip_traces: bool = False,
        temporary: Path | None = None,
    ) -> Stage:
        """Return a new stage in the folder, in place of an earlier one; make torch's probes if there are none yet.

        Headers and kernels that were built stay in `temporary`, which is `t` in the folder.
        """
        temporary = temporary or folder / "t"
        home = folder / ("weakened" if weaken else "s")
        shutil.rmtree(home, ignore_errors=True)
        if not temporary.exists():
            temporary.mkdir(mode=0o700, parents=True)
            with_probes(temporary, **remembering_compiler(temporary / "compiler"))
        return cls(home, temporary, workers=workers, weaken=weaken, skip_traces=skip_traces)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.close()

    def daemon(self, order: Order) -> Daemon:
        """Return the daemon of that order; the first call starts it."""
        with self._starting:
            if order not in self._daemons:
                # This compiler's memory is in a folder that a confined worker could not reach.
                variables = {**self._variables, "COMPILER_DAEMON_SANDBOX": "off"}
                made = Daemon(self.folder / order, self._lab.temporary, self._daemon_arguments, variables)
                self._closing.callback(made.stop)
                self._daemons[order] = made.start()
            return self._daemons[order]

    def write(self, twins: Twins) -> dict[Phase, Path]:
        """Write both programs; return the path of each."""
        home = self.folder / twins.folder
        places: dict[Phase, Path] = {}
        for phase in PHASES:
            place = home / twins.thing.file.get(phase, "program.py")
            text = text_of(twins, phase)
            if place.exists() and place.read_text() != text:
                place = home / phase / place.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
            shutil.copyfile(_TELLING, place.with_name("telling.py"))
            places[phase] = place
        return places

    def run(self, twins: Twins, phase: Phase, script: Path, *, way: str, order: Order | None = None) -> Run:
        """Run one program in a process with empty caches, through the daemon of that order or plainly without one."""
        with self._lock:
            self._count += 1
            home = self.folder / f"run-{self._count}"
        home.mkdir()
        report = home / "report.json"
        daemon = self.daemon(order) if order else None
        environment = self._lab.variables(daemon, home / "caches", report)
        environment |= _PASSIVE | self._variables | twins.thing.environment.get(phase, {})
        environment |= self._skipping if daemon else {}
        if twins.thing.fresh:
            outcome = _started_anew(script, phase, environment, report)
        else:
            outcome = self._forks.run(str(script), [phase], environment, _LIMIT_S, served=daemon is not None)
        shutil.rmtree(home, ignore_errors=True)
        last = outcome.out[-1] if outcome.out else ""
        places = dict(counted for line in outcome.out if (counted := _counted(line)))
        return Run(phase, way, outcome.code, last, places, outcome.err, outcome.report, outcome.seconds)


def _counted(line: str) -> tuple[str, dict[str, Any]] | None:
    """Return what a line of the output says about the counters at one place of the program."""
    if not line.startswith('{"counters of"'):
        return None
    said = json.loads(line)
    before, after = said["before"], said["after"]
    grown = {name: after[name] - before.get(name, 0) for name in COUNTERS if name in after}
    for name in ("refused", "fallbacks"):
        counts = {reason: n - before.get(name, {}).get(reason, 0) for reason, n in after.get(name, {}).items()}
        grown[name] = {reason: n for reason, n in counts.items() if n}
    grown["traces"] = Counter(_traces(after)) - Counter(_traces(before))
    return said["counters of"], grown


def _traces(counters: dict[str, Any]) -> dict[str, int]:
    """Return what the counters say of traces: what became of them, and how often each reason refused one."""
    traces = counters.get("traces", {})
    counts = {name: count for name, count in traces.items() if isinstance(count, int)}
    return counts | {f"refused: {reason}": count for reason, count in traces.get("refused", {}).items()}


def _started_anew(script: Path, phase: Phase, environment: dict[str, str], report: Path) -> Outcome:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, str(script), phase],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        timeout=_LIMIT_S,
        check=False,
    )
    counters = json.loads(report.read_text()) if report.exists() else {}
    seconds = time.monotonic() - began
    return Outcome(done.returncode, done.stdout.splitlines(), done.stderr, seconds, report.parent, counters)
