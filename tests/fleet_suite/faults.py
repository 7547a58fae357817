"""Every fault of a tier on every engine, with torch: the trainer ends well, and never takes its daemon for dead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.conftest import wait_until
from tests.e2e.nodes import Node
from tests.faults.small_disk import can_mount
from tests.fleet_suite.places import FAULTS, PLACES, Objects, Room
from tests.fleet_suite.row import Finding, Row, unplayed
from tests.fleet_suite.stage import Stage, Tier, missing, tier_of

_SIZES = ("4", "6")
"""The first is in the tier, the second is not."""

_COUNTED = {
    ("down", ""): "tier_failed",
    ("slow", ""): "tier_late",
    ("full", ""): "tier_failed",
    ("lying", ""): "tier_rejected",
    ("partial", ""): "tier_failed",
    ("partial", "directory"): "tier_rejected",
    ("denied", ""): "tier_failed",
}
"""Which counter of the daemon's says so, by fault and engine."""

_PROMISE = (
    "A trainer with two graphs, the first of which another node has put into the tier, on a daemon with an empty "
    "store: exit code 0, torch's own losses, no failure between trainer and daemon (so `fallbacks.timeout` is 0), "
    "nothing compiled by the trainer; and the fault is counted"
)


def faults(stage: Stage) -> Iterator[Row]:
    """Yield a row for each fault and engine."""
    alone = stage.alone("perceptron.py", *_SIZES)
    objects: Objects | None = None
    with stage.lab() as lab, tier_of("directory") as tier:
        (maker,) = stage.nodes(lab, tier, "maker")
        for engine, place in PLACES.items():
            for fault in FAULTS:
                name = f"{fault} x {engine}"
                if not stage.wants(name):
                    continue
                if why := missing(engine) or _not_here(fault, engine):
                    yield unplayed(name, _PROMISE, why)
                    continue
                objects = objects or _made(maker, tier)
                with place(fault, objects) as room, contextlib.closing(_Cell(stage, room, maker)) as cell:
                    yield cell.row(name, _COUNTED.get((fault, engine)) or _COUNTED[fault, ""], fault, alone)


def _not_here(fault: str, engine: str) -> str:
    if engine == "directory" and fault in ("full", "denied") and not can_mount():
        return "it takes the right to mount a small file system, and to be another user"
    return ""


def _made(maker: Node, tier: Tier) -> Objects:
    """Have the first graph compiled; return what lies in the tier then, by name."""
    outcome = maker.train("perceptron.py", _SIZES[0]).wait()
    assert outcome.code == 0, outcome.err
    root = Path(tier.address.removeprefix("file://"))
    wait_until(lambda: any(path.is_file() for path in (root / "facts").rglob("*")), what="the facts are in the tier")
    files = [path for kind in ("v1", "facts") for path in (root / kind).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


class _Cell:
    """One fault on one engine."""

    def __init__(self, stage: Stage, room: Room, maker: Node) -> None:
        self._scope = contextlib.ExitStack()
        self._room = room
        lab = self._scope.enter_context(stage.lab())
        self._node = Node(lab, "n", room.address, launcher=room.launcher, **room.variables, **stage.variables)
        self._node.trust(maker)
        self._node.daemon.start()
        lab.also(self._node.daemon)

    def close(self) -> None:
        self._scope.close()

    def row(self, name: str, counter: str, fault: str, alone: object) -> Row:
        self._room.strike()
        outcome = self._node.train("perceptron.py", *_SIZES, LD_PRELOAD="").wait()
        counters, report = self._node.daemon.counters(), outcome.report
        finding = Finding()
        finding.note(self._room.done)
        finding.check(outcome.code == 0, f"exit code {outcome.code}")
        finding.check(outcome.out and outcome.result == alone, "torch's own losses" if outcome.out else "no losses")
        failures = report.get("fallbacks", {"no report": 1})
        finding.check(not failures, f"failures {failures or 'none'}")
        finding.check(not report.get("compiled_here"), f"{report.get('compiled_here')} compiled by the trainer")
        finding.check(counters.get(counter), f"`{counter}` {counters.get(counter, 0)}")
        hits = counters.get("tier_hits", 0)
        if fault == "full":
            finding.check(hits == 1, f"{hits} from the tier")
        else:
            finding.check(not hits or fault == "slow", f"{hits} from the tier")
        finding.note(f"waited {report.get('seconds_waited', 0.0):.1f} s")
        return Row(name=name, promise=_PROMISE, found=finding.text, passed=finding.passed)
