"""One cell: the trainer in a process of its own, in compile-only mode, and what its report says.

Guarantees: torch's caches of a cell are empty when it starts and gone when it has ended, so that nothing hides a graph
from the daemon; its output goes to a log file; `end` leaves no process of it behind.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from compiler_daemon.admin.sweep import aside
from compiler_daemon.admin.sweep.plan import SCRATCH, Cell
from compiler_daemon.workers.process_tree import ProcessTree

Pass = Literal["ahead", "ordinary"]
"""Compile-only; or as always, for graphs that the daemon refused: torch compiles them there, and they are published."""

_OURS = ("TORCH_COMPILE_CLIENT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
_GRAPH_TIMEOUT_S = 7200
"""How long a graph may wait in compile-only mode, where nobody waits for it: a sweep's queue is long."""

_HIT_LIMIT = "torch._dynamo hit config.recompile_limit"
_PUBLISHABLE = ("key_mismatch", "unsupported", "environment", "worker_lost", "limit")
"""Refusals after which a trainer's own compile helps the trainers after it."""

_LAST_WORDS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class WarmResult:
    """One graph of a cell, as the trainer's report has it."""

    key: str
    code: str
    outcome: str
    seconds: float
    why: str
    host: str = ""
    """The other node that compiled it, where it came from a shared tier for this cell; its outcome is `elsewhere`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CellResult:
    """Says how one cell of a sweep ended."""

    cell: Cell
    seconds: float
    failure: str = ""
    """Why the cell is not done; empty where it is."""
    skipped: bool = False
    rows: tuple[WarmResult, ...] = ()
    environment: str = ""
    recompile_limit: int = 0
    hit_limit: bool = False
    """Whether dynamo said that it went eager."""
    published_here: int = 0
    """Graphs that the daemon refused, and that an ordinary run has compiled and published."""
    log: str = ""

    def count(self, *outcomes: str) -> int:
        """Return how many graphs ended so."""
        return sum(row.outcome in outcomes for row in self.rows)

    @property
    def graphs(self) -> int:
        """Different graphs."""
        return len(self.rows) - self.count("repeated")

    @property
    def refused(self) -> list[WarmResult]:
        """Graphs that the daemon would not compile."""
        return [row for row in self.rows if row.outcome == "refused"]

    @property
    def worth_an_ordinary_run(self) -> bool:
        """Whether a trainer's own compile would spare the trainers after it one."""
        return not self.failure and any(row.why.startswith(_PUBLISHABLE) for row in self.refused)

    @property
    def keys(self) -> list[str]:
        """Keys of the graphs that are stored now."""
        return sorted({row.key for row in self.rows if row.key and row.outcome in ("there", "compiled", "elsewhere")})


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepContext:
    """Holds what all cells of a warm-up share."""

    directory: Path
    """The daemon's."""
    address: str
    """Empty where the daemon's directory says it."""
    aside: bool = False
    """What trainers write below their own directory goes into a layer that ends with the cell."""
    offline: bool = False
    """Trackers of experiments tell nobody of a trainer."""
    steps: int = 0
    """Steps without a new graph after which a trainer ends; 0 never."""

    @property
    def folder(self) -> Path:
        """Where logs, records and scratch of sweeps are."""
        return self.directory / "warm"

    def log_of(self, cell: Cell) -> Path:
        """Return the file that gets the cell's output."""
        name = "".join(c if c.isalnum() or c in "=._-" else "-" for c in cell.label)[:80]
        return self.folder / "log" / f"{name}-{cell.digest[:8]}.log"


@dataclass
class Run:
    """Follows a cell that runs."""

    cell: Cell
    context: SweepContext
    kind: Pass
    limit_s: float
    started: float = field(default_factory=time.monotonic)

    def start(self, environ: Mapping[str, str]) -> Run:
        """Start the trainer; raise `OSError` where that cannot be done."""
        log = self.context.log_of(self.cell)
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._scratch = Path(tempfile.mkdtemp(prefix="cell-", dir=self.context.folder))
        own = self._scratch / SCRATCH
        own.mkdir()
        command = [word.replace(f"{{{SCRATCH}}}", str(own)) for word in self.cell.command]
        if self.context.aside:
            command = [*aside.launcher(self._layer), *command]
        try:
            with open(log, "wb" if self.kind == "ahead" else "ab") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self._environ(environ),
                    cwd=self.cell.directory or None,
                    start_new_session=True,
                )
        except OSError:
            self._remove()
            raise
        self._tree = ProcessTree(self._process.pid)
        return self

    def poll(self) -> CellResult | None:
        """Return the result once the trainer has ended, or has run over its limit; None while it runs."""
        code = self._process.poll()
        elapsed = time.monotonic() - self.started
        if code is None and elapsed <= self.limit_s:
            self._tree.usage()  # remembers who its children are
            return None
        failure = ""
        if code is None:
            failure = f"it ran for more than {self.limit_s:.0f} s"
        elif code != 0:
            failure = f"it ended with exit code {code}" if code > 0 else f"it was ended by signal {-code}"
        result = self._read(elapsed, failure)
        self.end()
        return result

    def end(self) -> None:
        """End whatever of it still runs, and remove its scratch. Ending twice is fine."""
        self._tree.kill()
        self._process.wait()
        self._remove()

    def _remove(self) -> None:
        aside.remove(self._layer)
        shutil.rmtree(self._scratch, ignore_errors=True)

    @property
    def _layer(self) -> Path:
        return self._scratch / "aside"

    @property
    def _report(self) -> Path:
        return self._scratch / "report.json"

    def _environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in environ.items() if not name.startswith(_OURS)}
        kept |= {
            "TORCH_COMPILE_CLIENT": "1",
            "TORCH_COMPILE_CLIENT_REPORT": str(self._report),
            "TORCH_COMPILE_CLIENT_TIMEOUT": environ.get("TORCH_COMPILE_CLIENT_TIMEOUT", str(_GRAPH_TIMEOUT_S)),
            "COMPILER_DAEMON_DIR": str(self.context.directory),
            "TORCHINDUCTOR_CACHE_DIR": str(self._scratch / "inductor"),
            "TRITON_CACHE_DIR": str(self._scratch / "triton"),
        }
        if self.kind == "ahead":
            kept["TORCH_COMPILE_CLIENT_WARM"] = "1"
            kept["TORCH_COMPILE_CLIENT_WARM_STEPS"] = str(self.context.steps)
        if self.context.offline:
            kept |= offline(environ, self._scratch / SCRATCH)
        if self.context.address:
            kept["COMPILER_DAEMON_ADDRESS"] = self.context.address
        return kept | dict(self.cell.environment)

    def _read(self, seconds: float, failure: str) -> CellResult:
        reports = [_report(path) for path in sorted(self._scratch.glob("report.json*"))]
        log = self.context.log_of(self.cell)
        words = _tail(log)
        if failure:
            failure += f": {words.splitlines()[-1]}" if words.strip() else ""
        warm = [report["warm"] for report in reports if isinstance(report.get("warm"), dict)]
        rows = tuple(_row(row) for part in warm for row in part.get("graphs", []))
        lost = [row for row in rows if row.outcome == "lost"]
        if not failure and lost:
            failure = f"{len(lost)} graphs got no answer: {lost[0].why}"
        return CellResult(
            cell=self.cell,
            seconds=seconds,
            failure=failure,
            rows=rows,
            environment=next((str(part["environment"]) for part in warm if part.get("environment")), ""),
            recompile_limit=max((int(part.get("recompile_limit", 0)) for part in warm), default=0),
            hit_limit=_HIT_LIMIT in _text(log),
            published_here=sum(int(report.get("published", 0)) for report in reports),
            log=str(log),
        )


def offline(environ: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return what keeps trackers of experiments from telling others of a run that is none; what is off stays off."""
    return {
        "WANDB_MODE": "disabled" if environ.get("WANDB_MODE") == "disabled" else "offline",
        "WANDB_DIR": str(folder),
        "NEPTUNE_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }


def _report(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):  # a trainer's child that was killed while it wrote
        return {}
    return found if isinstance(found, dict) else {}


def _row(row: Mapping[str, Any]) -> WarmResult:
    outcome, host = str(row["outcome"]), str(row.get("host", ""))
    return WarmResult(
        key=str(row["key"]),
        code=str(row["code"]),
        outcome="elsewhere" if host and outcome in ("there", "compiled") else outcome,
        seconds=float(row["seconds"]),
        why=str(row["why"]),
        host=host,
    )


def _text(log: Path) -> str:
    try:
        return log.read_text(errors="replace")
    except OSError:
        return ""


def _tail(log: Path) -> str:
    lines = [line for line in _text(log)[-8192:].splitlines() if line.strip()]
    return lines[-1][:_LAST_WORDS] if lines else ""
