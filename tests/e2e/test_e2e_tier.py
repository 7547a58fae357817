"""Daemons with directories of their own and one tier: what one has compiled, the trainers of all are served."""

from __future__ import annotations

from tests.e2e.conftest import Lab, wait_until
from tests.e2e.nodes import fleet, folder


def test_what_one_node_has_compiled_costs_another_node_neither_a_compile_nor_a_build(lab: Lab) -> None:
    a, b = fleet(lab, f"file://{folder(lab)}")

    cold = a.train("perceptron.py").wait()
    assert cold.report["compiled_by_daemon"] == 1
    wait_until(lambda: a.daemon.counters().get("tier_written", 0) >= 1, what="the artifact is in the tier")
    served = b.train("perceptron.py").wait()

    assert served.result == cold.result
    assert (served.report["hits"], served.report["compiled_by_daemon"], served.report["compiled_here"]) == (1, 0, 0)
    assert b.daemon.counters()["tier_hits"] == 1
    assert b.builds == [], "g++ ran on a node that was served"
    assert b.artifacts() == a.artifacts()
