"""Runs the cells, several at a time, and keeps going when one fails.

One thread: it starts trainers, looks at them ten times a second, and asks the daemon how it stands every two seconds.
Guarantee: however it ends, by an error or by Ctrl-C, no trainer is left behind.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from compiler_daemon.admin.answers import DaemonState
from compiler_daemon.admin.sweep.cell import CellResult, Pass, Run, SweepContext
from compiler_daemon.admin.sweep.estimate import DaemonLoad, Progress, remaining_seconds
from compiler_daemon.admin.sweep.plan import Cell
from compiler_daemon.errors import DaemonError

_LOOK_S = 0.1
_ASK_S = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmupConfig:
    """Configures how cells are run."""

    jobs: int
    keep_going: bool = True
    cell_s: float = 3600.0
    """A trainer that runs longer is ended."""
    ordinary_run: bool = True
    """Run a cell again, as always, where the daemon has refused a graph that a trainer can publish."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepProgress:
    """Says how far a warm-up is, for who watches."""

    done: int
    running: Sequence[str]
    total: int
    left_s: float | None
    load: DaemonLoad


class SweepRunner:
    """Runs all cells of a sweep once."""

    def __init__(
        self,
        config: WarmupConfig,
        context: SweepContext,
        environ: Mapping[str, str],
        *,
        status: Callable[[], DaemonState],
        on_change: Callable[[SweepProgress], None],
        on_result: Callable[[CellResult], None],
    ) -> None:
        """`status` is the daemon's state, and may raise `DaemonError`; the others are told as things happen."""
        self._config = config
        self._context = context
        self._environ = environ
        self._status = status
        self._on_change = on_change
        self._on_result = on_result
        self._waiting: deque[tuple[Cell, Pass]] = deque()
        self._running: list[Run] = []
        self._first: dict[Cell, CellResult] = {}
        self._results: list[CellResult] = []
        self._load = DaemonLoad()
        self._asked = -_ASK_S
        self._total = 0

    def run(self, cells: Iterable[Cell]) -> list[CellResult]:
        """Run all of them; return the results in the order in which they ended."""
        self._context.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._waiting.extend((cell, "ahead") for cell in cells)
        self._total = len(self._waiting)
        try:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._config.jobs:
                    self._start(*self._waiting.popleft())
                self._look()
                self._on_change(self._progress())
                if self._running:
                    time.sleep(_LOOK_S)
        finally:
            for run in self._running:
                run.end()
        return self._results

    def _start(self, cell: Cell, kind: Pass) -> None:
        run = Run(cell, self._context, kind, self._config.cell_s)
        try:
            self._running.append(run.start(self._environ))
        except OSError as error:
            self._end(CellResult(cell=cell, seconds=0.0, failure=f"{cell.command[0]} cannot be started: {error}"))

    def _look(self) -> None:
        for run in list(self._running):
            result = run.poll()
            if result is None:
                continue
            self._running.remove(run)
            if run.kind == "ordinary":
                result = _with_ordinary(self._first.pop(run.cell), result)
            elif result.worth_an_ordinary_run and self._config.ordinary_run:
                self._first[run.cell] = result
                self._waiting.append((run.cell, "ordinary"))
                continue
            self._end(result)

    def _end(self, result: CellResult) -> None:
        self._results.append(result)
        self._on_result(result)
        if result.failure and not self._config.keep_going:
            self._waiting.clear()

    def _progress(self) -> SweepProgress:
        now = time.monotonic()
        if now - self._asked >= _ASK_S:
            self._asked = now
            try:
                self._load = DaemonLoad.of(self._status())
            except DaemonError:  # gone: the cells will say so, each in its own result
                self._load = DaemonLoad()
        done = [result for result in self._results if not result.failure]
        progress = Progress(
            waiting=len(self._waiting),
            running_s=[now - run.started for run in self._running],
            done_s=[result.seconds for result in done],
            compiles_per_cell=sum(result.count("compiled") for result in done) / max(1, len(done)),
        )
        return SweepProgress(
            done=len(self._results),
            running=[run.cell.label for run in self._running],
            total=self._total,
            left_s=remaining_seconds(progress, self._load, jobs=self._config.jobs),
            load=self._load,
        )


def _with_ordinary(first: CellResult, second: CellResult) -> CellResult:
    """Return the result of a cell whose refused graphs a second, ordinary run has compiled and published."""
    if second.failure:
        return replace(first, failure=f"in an ordinary run, for {len(first.refused)} refused graphs, {second.failure}")
    return replace(first, seconds=first.seconds + second.seconds, published_here=second.published_here)
