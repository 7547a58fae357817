"""Four daemons, eight trainers, nothing compiled yet: with the tier up, and with a Redis that dies in the middle."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence

from tests.e2e.conftest import Outcome, wait_until
from tests.e2e.nodes import Node
from tests.fleet_suite.row import Finding, Row, unplayed
from tests.fleet_suite.stage import ENGINES, Stage, missing, tier_of

_NAMES = ("n0", "n1", "n2", "n3")
_EACH = 2
_SIZES = ("4", "6")
_MORE_SIZES = ("4", "6", "8", "10")


def cold(stage: Stage) -> Iterator[Row]:
    """Yield a row for each engine: each graph is compiled once in the fleet, and all run the same."""
    promise = "4 daemons, 8 trainers that start together: 2 graphs, each compiled once in the fleet; the same losses"
    for engine in filter(stage.wants, ENGINES):
        if why := missing(engine):
            yield unplayed(engine, promise, why)
            continue
        alone = stage.alone("perceptron.py", *_SIZES)
        with stage.lab() as lab, tier_of(engine) as tier:
            nodes = stage.nodes(lab, tier, *_NAMES)
            outcomes = _trained(nodes, _SIZES)
            finding = Finding()
            _same(finding, outcomes, alone)
            done = [node.daemon.counters() for node in nodes]
            compiles = sum(each.get("tier_written", 0) + each.get("tier_adopted", 0) for each in done)
            finding.check(compiles == len(_SIZES), f"{compiles} compiles of {len(_SIZES)} graphs in the fleet")
            merged = sum(each.get("tier_merged", 0) + each.get("tier_hits", 0) for each in done)
            finding.note(f"{merged} times another node's compile was taken")
            kept = [node.artifacts() for node in nodes]
            equal = all(each == kept[0] and len(each) == len(_SIZES) for each in kept)
            finding.check(equal, f"{'the same' if equal else 'different'} artifacts on all nodes")
            yield Row(name=engine, promise=promise, found=finding.text, passed=finding.passed)


def redis_killed(stage: Stage) -> Iterator[Row]:
    """Yield one row: the tier's only server dies while the fleet is in the middle of its graphs."""
    promise = (
        "Redis killed (`kill -9`) while 8 trainers on 4 daemons are at their graphs: all end well, with the same losses"
    )
    if why := missing("redis"):
        yield unplayed("killed", promise, why)
        return
    alone = stage.alone("perceptron.py", *_MORE_SIZES)
    with stage.lab() as lab, tier_of("redis") as tier:
        nodes = stage.nodes(lab, tier, *_NAMES)
        trainers = [node.train("perceptron.py", *_MORE_SIZES) for _ in range(_EACH) for node in nodes]
        wait_until(
            lambda: any(node.daemon.counters().get("tier_written", 0) for node in nodes),
            what="the first artifact is in the tier",
            timeout_s=200,
        )
        os.kill(tier.pid, signal.SIGKILL)
        running = sum(trainer.process.poll() is None for trainer in trainers)
        outcomes = [trainer.wait() for trainer in trainers]
        finding = Finding()
        finding.check(
            running == len(trainers), f"{running} of {len(trainers)} trainers were running when it was killed"
        )
        _same(finding, outcomes, alone)
        failed = sum(node.daemon.counters().get("tier_failed", 0) for node in nodes)
        finding.check(failed, f"{failed} calls that it did not do")
        codes = {node.name: node.daemon.stop() for node in nodes}
        finding.check(set(codes.values()) == {0}, f"daemons' exit codes {sorted(set(codes.values()))}")
        yield Row(name="killed", promise=promise, found=finding.text, passed=finding.passed)


def _trained(nodes: Sequence[Node], sizes: Sequence[str]) -> list[Outcome]:
    trainers = [node.train("perceptron.py", *sizes) for _ in range(_EACH) for node in nodes]
    return [trainer.wait() for trainer in trainers]


def _same(finding: Finding, outcomes: Sequence[Outcome], alone: object) -> None:
    """Look at exit codes, losses, local compiles, failures, and how long a trainer waited for its daemon."""
    codes = {outcome.code for outcome in outcomes}
    finding.check(codes == {0}, f"trainers' exit codes {sorted(codes)}")
    same = sum(bool(outcome.out) and outcome.result == alone for outcome in outcomes)
    finding.check(same == len(outcomes), f"{same} of {len(outcomes)} with torch's own losses, bit for bit")
    here = sum(outcome.report.get("compiled_here", 0) for outcome in outcomes)
    finding.check(not here, f"{here} graphs compiled by trainers")
    failures = {name for outcome in outcomes for name in outcome.report.get("fallbacks", {})}
    finding.check(not failures, f"failures {sorted(failures) or 'none'}")
    longest = max(outcome.report.get("seconds_waited", 0.0) for outcome in outcomes)
    finding.note(f"a trainer waited at most {longest:.1f} s in all")
