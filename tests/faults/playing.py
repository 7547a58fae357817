"""Plays one cell, and checks in one place what every cell promises."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Outcome
from tests.faults.cell import Cell
from tests.faults.kit import Kit
from tests.faults.scene import Scene

NOISE = 4.0
NOISE_S = 60.0
"""What a trainer may lose to the rest of the machine: so many times its time without a daemon, and so many seconds.
Its own report of its waits for the daemon gets no such allowance.
"""
_FLUSH_S = 10.0
"""How long the end of a process may wait for what is still to be published."""
_BETWEEN_S = 5.0
"""What a busy machine needs between two waits, to import gRPC and to check digests."""


@dataclass(kw_only=True)
class Result:
    """The outcome of a cell."""

    fault: str
    step: str
    passed: bool = False
    counter: str = ""
    """The counter that named the fault, and by how much it rose."""
    what: str = ""
    seconds: float = 0.0
    """The trainer's time, from its start to its end."""
    alone_s: float = 0.0
    """The trainer's time without a daemon."""
    waited_s: float = 0.0
    """The part of `seconds` that the trainer waited for the daemon, by its own report."""
    bound_s: float = 0.0
    """How long the trainer may wait: the user's deadline for each graph."""
    daemon: str = ""
    """The daemon's state afterwards: it kept serving, or was started again."""
    report: dict[str, Any] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    """The daemon's counters that rose."""
    failure: str = ""
    ran_at: str = ""
    commit: str = ""
    """The commit that was checked out, if known."""


def play(cell: Cell, kit: Kit, folder: Path) -> Result:
    """Play a cell and return its result; anything raised makes it fail. `folder` is made, and removed afterwards."""
    result = Result(
        fault=cell.fault,
        step=cell.step,
        what=cell.what,
        bound_s=cell.graphs * cell.limit_s,
        ran_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    try:
        scene = Scene(kit, folder, **cell.scene_options())
        try:
            cell.play(scene)
            outcome = scene.run()
            result.seconds, result.report = round(outcome.seconds, 2), outcome.report
            result.alone_s = round(kit.seconds[scene.form], 2)
            result.waited_s = outcome.report.get("seconds_waited", 0.0)
            _check_outcome(cell, scene, outcome, result)
            result.counted = scene.end_trouble(
                {name.partition(":")[2] for name in cell.counters if name.startswith("daemon:")}
            )
            result.daemon = "started again" if scene.restarted else "served on"
            result.counter = _counter(cell, result)
        finally:
            scene.close()
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - a cell that fails must not end the others
        result.failure = "".join(traceback.format_exception(error))[-4000:]
    else:
        result.passed = True
    return result


def _check_outcome(cell: Cell, scene: Scene, outcome: Outcome, result: Result) -> None:
    told = f"\n{outcome.err[-3000:]}\n{scene.daemon.log()[-3000:]}\n{outcome.report}"
    assert outcome.code == 0, f"the trainer ended with {outcome.code}{told}"
    assert outcome.result == scene.numbers_expected(), f"other numbers: {outcome.result}{told}"
    assert scene.struck_in_time, f"the fault was never done{told}"
    report = outcome.report
    needed, came = (
        ("kernels", ("kernel_hits", "kernels_by_daemon", "kernels_here"))
        if cell.of_kernels
        else ("graphs", ("hits", "compiled_by_daemon", "compiled_here"))
    )
    assert report[needed] == cell.graphs, told
    assert sum(report[name] for name in came) == cell.graphs, told
    assert report["seconds_waited"] <= result.bound_s + _BETWEEN_S, f"waited too long{told}"
    lost_s = _FLUSH_S + NOISE * result.alone_s + NOISE_S
    assert outcome.seconds <= result.alone_s + result.bound_s + lost_s, f"took {outcome.seconds:.1f} s{told}"
    if cell.fault == "clock jump":
        assert not report["fallbacks"], told
        assert not report["unpublished"], told


def _counter(cell: Cell, result: Result) -> str:
    """Return those of the cell's counters that have risen; raise if none has."""
    up = []
    for name in cell.counters:
        side, _, counter = name.partition(":")
        found: Any = result.report if side == "client" else result.counted
        for part in counter.split(".") if side == "client" else [counter]:
            found = found.get(part, {})
        if found:
            up.append(f"{side}: {counter} +{found}")
    assert up, f"none of {cell.counters} went up: {result.report}, {result.counted}"
    return ", ".join(up)
