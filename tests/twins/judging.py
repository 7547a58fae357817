"""A pair played through, and what is said of it: B must be B, whoever was there before."""

from __future__ import annotations

import difflib
import json
import time
from dataclasses import dataclass, field
from typing import Any

from tests.twins.stage import Run, Stage
from tests.twins.thing import Pair, Phase

_SHORT = 300
_PLAYED: tuple[tuple[str, Phase, str], ...] = (
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
    """What came of one pair."""

    name: str
    thing: str
    kind: str
    position: str
    times: str
    differences: list[str]
    """Where a program with a daemon did not end as it does plainly: each way, and in what."""
    lost: list[str]
    """Hits that should have been: ways in which something was compiled again that was there."""
    telling: bool
    """Whether A and B differ plainly. Twins that do not can still go wrong, but not by being exchanged."""
    raises: bool
    """Whether a program is stopped by an exception plainly, too."""
    graphs: int
    refused: dict[str, int]
    """Reasons for which graphs were compiled in the program's own process, in all runs."""
    seconds: float
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.differences and not self.lost


def play(stage: Stage, pair: Pair) -> Result:
    """Run both programs plainly, A before B on one daemon, and B before A on another; compare each with its plain run."""
    began = time.monotonic()
    scripts = stage.write(pair)
    plain = {phase: stage.run(pair, phase, script, way=f"{phase}, plain") for phase, script in scripts.items()}
    served = [stage.run(pair, phase, scripts[phase], way=way, order=order) for order, phase, way in _PLAYED]
    return judge(pair, plain, served, time.monotonic() - began)


def judge(pair: Pair, plain: dict[Phase, Run], served: list[Run], seconds: float) -> Result:
    """Say of one pair's runs what was wrong with them."""
    differences, lost = [], []
    refused: dict[str, int] = {}
    for run in served:
        if said := difference(plain[run.phase], run):
            differences.append(f"{run.way}: {said}")
        counters = run.counters
        for reason, count in {**counters.get("refused", {}), **counters.get("fallbacks", {})}.items():
            refused[reason] = refused.get(reason, 0) + count
        if said := lost_hits(run, exchanged=pair.thing.harmless):
            lost.append(f"{run.way}: {said}")
    return Result(
        name=pair.name,
        thing=pair.thing.name,
        kind=pair.thing.kind,
        position=pair.position,
        times=pair.times,
        differences=differences,
        lost=lost,
        telling=plain["A"].last != plain["B"].last,
        raises=any('"raised"' in run.last or run.code for run in plain.values()),
        graphs=max(run.counters.get("graphs", 0) for run in served),
        refused=refused,
        seconds=round(seconds, 1),
        runs=[{"way": r.way, "code": r.code, "seconds": round(r.seconds, 2)} | _short(r.counters) for r in served],
    )


def difference(plain: Run, served: Run) -> str:
    """Say in what a run with a daemon ended otherwise than plainly; nothing where it did not."""
    if served.code != plain.code:
        error = (served.errors.strip().splitlines() or [""])[-1]
        return f"exit code {served.code}, plainly {plain.code}: {error[:_SHORT]}"
    if served.last == plain.last:
        return ""
    try:
        a, b = json.loads(plain.last), json.loads(served.last)
    except ValueError:
        return f"its last line is {served.last[:_SHORT]!r}, plainly {plain.last[:_SHORT]!r}"
    for step, (mine, other) in enumerate(zip(a["steps"], b["steps"], strict=False)):
        if mine != other:
            names = sorted(name for name in {*mine, *other} if mine.get(name) != other.get(name))
            return f"step {step} ({mine['step']}): {', '.join(_apart(n, mine.get(n), other.get(n)) for n in names)}"
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


def lost_hits(run: Run, *, exchanged: bool) -> str:
    """Say where something was compiled although it was there: in a warm run, and in that of a harmless twin.

    What could not be shared has its reason, and is no loss of a warm run; but it is that of a harmless twin.
    """
    counters = run.counters
    if not counters.get("graphs"):
        return ""
    warm, exchange = run.way.endswith("warm"), " after " in run.way
    made = counters["compiled_by_daemon"]
    here = counters["compiled_here"]
    if warm and made:
        return f"{made} of {counters['graphs']} graphs were compiled by the daemon again"
    if exchange and exchanged and (made or here):
        reasons = {**counters["refused"], **counters["fallbacks"]}
        return f"of {counters['graphs']} graphs the daemon compiled {made}, the program {here} {reasons or ''}".rstrip()
    return ""


def _short(counters: dict[str, Any]) -> dict[str, Any]:
    names = ("graphs", "hits", "hits_local", "compiled_by_daemon", "compiled_here", "refused", "fallbacks", "published")
    return {name: counters[name] for name in names if counters.get(name)}


def explained(plain: Run, served: Run) -> str:
    """Both last lines one under the other, line by line where they differ: for a person who wants to know."""
    texts = [json.dumps(json.loads(run.last), indent=1).splitlines() if run.last else [] for run in (plain, served)]
    return "\n".join(difflib.unified_diff(*texts, "plain", served.way, n=2, lineterm=""))
