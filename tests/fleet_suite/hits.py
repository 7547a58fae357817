"""What a hit in the tier costs a trainer beside one in its own node's store: whole processes, in turn."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator

from tests.e2e.conftest import Lab, Outcome, wait_until
from tests.e2e.nodes import Node
from tests.fleet_suite.row import Finding, Row, unplayed
from tests.fleet_suite.stage import Stage, Tier, missing, tier_of

_SIZES = ("4", "6", "8")
_ROUNDS = 5
_MOST = 1.15


def hits(stage: Stage) -> Iterator[Row]:
    """Yield a row for each engine: medians on a node that has nothing, over those on the node that compiled."""
    promise = (
        f"A trainer's seconds from start to end with {len(_SIZES)} graphs, on a new node with an empty store, over "
        f"those on the node that compiled them: the ratio of medians of {_ROUNDS} rounds in turn, at most {_MOST}"
    )
    wanted = [engine for engine in ("directory", "redis") if stage.wants(engine)]
    engines = [engine for engine in wanted if not missing(engine)]
    with stage.lab() as lab, contextlib.ExitStack() as scope:
        tiers = {engine: scope.enter_context(tier_of(engine)) for engine in engines}
        places = [tier.address for tier in tiers.values()]
        first = Node(lab, "first", *places, **stage.variables)
        first.daemon.start()
        lab.also(first.daemon)
        made = first.train("perceptron.py", *_SIZES).wait()
        assert made.report["compiled_by_daemon"] == len(_SIZES), made.err
        written = len(_SIZES) * len(tiers)
        wait_until(lambda: first.daemon.counters().get("tier_written", 0) >= written, what="all is in the tiers")
        seconds: dict[str, list[float]] = {name: [] for name in ("local", *engines)}
        findings = {engine: Finding() for engine in engines}
        for number in range(_ROUNDS + 1):
            outcome = first.train("perceptron.py", *_SIZES).wait()
            assert outcome.report["hits"] == len(_SIZES), outcome.report
            _note(seconds["local"], outcome, number)
            for engine, tier in tiers.items():
                outcome, hit = _on_a_new_node(stage, lab, tier, first, f"{engine[0]}{number}")
                if hit != len(_SIZES) or outcome.result != made.result or outcome.code:
                    findings[engine].check(False, f"round {number}: {hit} tier hits, exit code {outcome.code}")
                _note(seconds[engine], outcome, number)
    local = statistics.median(seconds["local"])
    for engine in wanted:
        if engine not in tiers:
            yield unplayed(engine, promise, missing(engine))
            continue
        far = statistics.median(seconds[engine])
        findings[engine].check(far / local <= _MOST, f"ratio {far / local:.3f}")
        spread = ", ".join(
            f"{name} {statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"
            for name, values in (("tier", seconds[engine]), ("local", seconds["local"]))
        )
        findings[engine].note(spread)
        yield Row(name=engine, promise=promise, found=findings[engine].text, passed=findings[engine].passed)


def _note(seconds: list[float], outcome: Outcome, number: int) -> None:
    if number:  # the first round fills the page cache
        seconds.append(outcome.seconds)


def _on_a_new_node(stage: Stage, lab: Lab, tier: Tier, first: Node, name: str) -> tuple[Outcome, int]:
    """Train on a node that has nothing but the tier; return also how many artifacts it took from there."""
    node = Node(lab, name, tier.address, **stage.variables)
    node.trust(first)
    node.daemon.start()
    try:
        outcome = node.train("perceptron.py", *_SIZES).wait()
        return outcome, node.daemon.counters().get("tier_hits", 0)
    finally:
        node.daemon.stop()
