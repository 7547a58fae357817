"""Plays a pair through and judges it: program B must do what B does, whichever program came before."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.twins.stage import Order, Run, Stage
from tests.twins.thing import Pair, Phase, Twins

_SHORT = 300
_PLAYED: tuple[tuple[Order, Phase, str], ...] = (
    # order, program, way
    ("AB", "A", "A, cold"),
    ("AB", "B", "B after A"),
    ("AB", "A", "A, warm"),
    ("AB", "B", "B, warm"),
    ("BA", "B", "B, cold"),
    ("BA", "A", "A after B"),
)


@dataclass(frozen=True)
class Result:
    """The outcome of one pair."""

    name: str
    thing: str
    kind: str
    position: str
    times: str
    differences: list[str]
    """The ways in which a program ended differently with a daemon than plainly, and in what it differed."""
    lost: list[str]
    """Hits that were lost: the ways in which something was compiled again that was there."""
    telling: bool
    """Whether A and B differ plainly. Other twins can still go wrong, but not by being exchanged."""
    raises: bool
    """Whether an exception stops a program plainly, too."""
    graphs: int
    refused: dict[str, int]
    """How often each reason kept a graph from the daemon, so that the program compiled it itself, in all runs."""
    seconds: float
    """The time of the pair's programs in all runs, including the other pairs in them."""
    traces: dict[str, int] = field(default_factory=dict)
    """What became of traces in all runs, where programs skip them: counts by outcome, or by reason."""

    @property
    def passed(self) -> bool:
        return not self.differences and not self.lost


def play(stage: Stage, twins: Twins) -> list[Result]:
    """Run both programs plainly, A before B on one daemon and B before A on another; compare with the plain runs."""
    began = time.monotonic()
    scripts = stage.write(twins)
    plain = {phase: stage.run(twins, phase, script, way=f"{phase}, plain") for phase, script in scripts.items()}
    served = [stage.run(twins, phase, scripts[phase], way=way, order=order) for order, phase, way in _PLAYED]
    seconds = round(time.monotonic() - began, 1)
    return [judge(pair, plain, served, seconds) for pair in twins.pairs]


def play_briefly(stage: Stage, twins: Twins) -> list[Result]:
    """Run B plainly, and twice after A on one daemon: half of the runs, for tests that run at every change."""
    scripts = stage.write(twins)
    began = time.monotonic()
    plain: dict[Phase, Run] = {"B": stage.run(twins, "B", scripts["B"], way="B, plain")}
    stage.run(twins, "A", scripts["A"], way="A, cold", order="AB")
    served = [stage.run(twins, "B", scripts["B"], way=way, order="AB") for way in ("B after A", "B, warm")]
    seconds = round(time.monotonic() - began, 1)
    return [judge(pair, plain, served, seconds) for pair in twins.pairs]


def judge(pair: Pair, plain: Mapping[Phase, Run], served: Sequence[Run], seconds: float) -> Result:
    """Return what was wrong with one pair in these runs."""
    differences, lost = [], []
    refused: dict[str, int] = {}
    traces: Counter[str] = Counter()
    for run in served:
        if said := difference(plain[run.phase], run, pair.place):
            differences.append(f"{run.way}: {said}")
        counted = run.places.get(pair.place, {})
        for reason, count in {**counted.get("refused", {}), **counted.get("fallbacks", {})}.items():
            refused[reason] = refused.get(reason, 0) + count
        traces.update(counted.get("traces", {}))
        if said := lost_hits(run.way, counted, exchanged=pair.thing.harmless):
            lost.append(f"{run.way}: {said}")
    told = {phase: told_at(run, pair.place) for phase, run in plain.items()}
    return Result(
        name=pair.name,
        thing=pair.thing.name,
        kind=pair.thing.kind,
        position=pair.position,
        times=pair.times,
        differences=differences,
        lost=lost,
        telling=len({json.dumps([told[phase], run.code]) for phase, run in plain.items()}) > 1,
        raises=any(not said or any("raised" in step for step in said["steps"]) for said in told.values()),
        graphs=max((run.places.get(pair.place, {}).get("graphs", 0) for run in served), default=0),
        refused=refused,
        seconds=seconds,
        traces=dict(sorted(traces.items())),
    )


def told_at(run: Run, place: str) -> dict[str, Any]:
    """Return what a program reported for a place; the result is empty if the program did not reach its end."""
    try:
        found: dict[str, Any] = json.loads(run.last).get(place, {})
    except (ValueError, AttributeError):
        return {}
    return found


def difference(plain: Run, served: Run, place: str) -> str:
    """Return how a run with a daemon ended differently than plainly; the text is empty if it did not."""
    if served.code != plain.code:
        error = (served.errors.strip().splitlines() or [""])[-1]
        return f"exit code {served.code}, plainly {plain.code}: {error[:_SHORT]}"
    a, b = told_at(plain, place), told_at(served, place)
    if a == b and (a or served.last == plain.last):
        return ""
    if not a or not b:
        return f"its last line is {served.last[:_SHORT]!r}, plainly {plain.last[:_SHORT]!r}"
    for mine, other in zip(a["steps"], b["steps"], strict=False):
        if mine != other:
            names = sorted(name for name in {*mine, *other} if mine.get(name) != other.get(name))
            return f"{mine['step']}: {', '.join(_apart(n, mine.get(n), other.get(n)) for n in names)}"
    return "random streams" if a["random"] != b["random"] else "number of steps"


def _apart(name: str, plain: Any, served: Any) -> str:
    if isinstance(plain, dict) and isinstance(served, dict):
        parts = [part for part in {**plain, **served} if plain.get(part) != served.get(part)]
        return f"{name}: " + "; ".join(_apart(part, plain.get(part), served.get(part)) for part in parts)
    if isinstance(plain, list) and isinstance(served, list) and len(plain) == len(served):
        place = next(n for n, (one, two) in enumerate(zip(plain, served, strict=True)) if one != two)
        return f"{name}[{place}] {_text(served[place])}, plainly {_text(plain[place])}"
    return f"{name} {_text(served)}, plainly {_text(plain)}"


def _text(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."


def lost_hits(way: str, counted: Mapping[str, Any], *, exchanged: bool) -> str:
    """Return what was compiled although it was there, in a warm run or in that of a harmless twin.

    A graph that could not be shared has a reason for it, and is no lost hit of a warm run. It is one of a harmless
    twin, except where torch itself has no key for the graph and caches it nowhere.
    """
    if not counted.get("graphs"):
        return ""
    made, here = counted["compiled_by_daemon"], counted["compiled_here"] - counted["refused"].get("uncacheable", 0)
    if way.endswith("warm") and made:
        return f"{made} of {counted['graphs']} graphs were compiled by the daemon again"
    if " after " in way and exchanged and (made or here):
        reasons = {**counted["refused"], **counted["fallbacks"]}
        return f"of {counted['graphs']} graphs the daemon compiled {made}, the program {here} {reasons or ''}".rstrip()
    return ""
