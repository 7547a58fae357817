"""The model of a fleet: properties that hold for every plan, and proof that its requests are those of the daemon."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

pytest.importorskip("simpy")

from benches.fleet.check import check
from benches.fleet.engine import Engine, EngineModel, Operation
from benches.fleet.figures import read_figures
from benches.fleet.model import Fleet, Plan
from benches.fleet.scenarios import engines, plan_of, play
from compiler_daemon.tier.address import compile_sha, read_tier
from compiler_daemon.tier.engines import open_engine
from compiler_daemon.tier.leases import Held, Leases, Waiting

SHA = compile_sha("lab", "env", "key")


@pytest.fixture
def plan() -> Plan:
    figures = read_figures()
    return replace(plan_of(figures, 4, engines(figures)["redis"]), graphs=3, trainers_per_node=2)


def test_over_a_fleet_each_graph_is_compiled_once_and_read_by_every_other_node(plan: Plan) -> None:
    outcome = Fleet(plan).run()

    assert (outcome.compiles, outcome.written) == (3, 3)
    assert outcome.hits == 3 * 3
    assert outcome.waited > 0


def test_without_a_tier_every_node_compiles_and_nobody_is_asked(plan: Plan) -> None:
    outcome = Fleet(replace(plan, engine=None)).run()

    assert (outcome.compiles, outcome.requests) == (4 * 3, 0)


def test_what_was_replayed_costs_one_read_a_graph_and_node_and_no_compile(plan: Plan) -> None:
    outcome = Fleet(replace(plan, replayed=True)).run()

    assert (outcome.compiles, outcome.misses, outcome.hits) == (0, 0, 4 * 3)
    assert outcome.operations == {"read": 12, "touch": 12, "facts": 4}
    assert outcome.seconds < Fleet(plan).run().seconds / 2


def test_a_plan_has_one_outcome(plan: Plan) -> None:
    assert Fleet(plan).run() == Fleet(plan).run()
    assert Fleet(plan).run() != Fleet(replace(plan, seed=1)).run()


def test_a_tier_that_is_asked_for_more_than_it_can_is_late(plan: Plan) -> None:
    assert plan.engine is not None
    slow = replace(plan.engine, reads_per_s=5, writes_per_s=5)

    assert Fleet(plan).run().delay_p99_s < 0.3 < Fleet(replace(plan, engine=slow)).run().delay_p99_s


def test_requests_at_once_wait_for_each_other_by_number_and_by_bytes() -> None:
    model = EngineModel(kind="redis", reads_per_s=10, writes_per_s=10, bytes_per_s=100, latency_s=0)
    engine = Engine(model)

    assert engine.ask(0, "read") == pytest.approx(0.1)
    assert engine.ask(0, "read") == pytest.approx(0.2)
    assert engine.ask(0, "read", 100) == pytest.approx(1.2)
    assert engine.ask(5, "read") == pytest.approx(0.1)


def test_a_count_that_the_model_does_not_give_does_not_fit() -> None:
    figures = read_figures()
    counted: dict[str, Any] = {
        "nodes": 4, "trainers": 8, "graphs": 3, "workers": 1, "compile_s": 10, "start_s": 3, "spread_s": 2,
        "between_graphs_s": 0.5,
        "counters": {"tier_hits": 9, "tier_written": 3, "tier_misses": 0, "tier_waited": 0},
    }  # fmt: skip

    rows = {row["counter"]: row for row in check(counted, figures)}

    assert {name for name, row in rows.items() if row["fits"]} == {"tier_hits", "tier_written"}
    counted["counters"] |= {name: rows[name]["most"] for name in ("tier_misses", "tier_waited")}
    assert all(row["fits"] for row in check(counted, figures))
    counted["counters"]["tier_hits"] = 10
    assert not all(row["fits"] for row in check(counted, figures))


def test_every_figure_says_where_it_is_from(tmp_path: Path) -> None:
    for name, figure in read_figures().items():
        kind = figure.source.partition(":")[0]
        assert kind in {"measured", "published", "assumed", "arithmetic", "the daemon's own"}, name
        assert figure.value > 0

    (tmp_path / "r.json").write_text(json.dumps({"rows": {"x": 3, "y": 5}}))
    entry = {"file": "r.json", "sum": [["rows", "x"], ["rows", "y"]], "per": 2, "unit": "s", "source": "measured: it"}
    (tmp_path / "m.json").write_text(json.dumps({"f": entry}))
    assert read_figures(tmp_path / "m.json", tmp_path)["f"].value == 4


def test_the_document_answers_up_to_how_many_nodes_each_tier_is_enough() -> None:
    document = play(read_figures(), (2, 4), lambda _: None)

    assert {row["engine"] for row in document["enough"]} == {"redis", "bucket", "directory"}
    for row in document["enough"]:
        assert row["wall_nodes"] > 4
        assert row["late_from_nodes"] is None
    assert {row["deploy"] for row in document["rows"]} >= {"cold", "replayed", "without a tier"}


class CountingEngine:
    """An engine that counts the requests it gets."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.reads = self.writes = 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._engine, name)
        if name in {"get", "create", "replace", "delete", "touch"}:
            self.reads += name == "get"
            self.writes += name != "get"
        return call

    def taken(self) -> tuple[int, int]:
        counted, self.reads, self.writes = (self.reads, self.writes), 0, 0
        return counted


@pytest_asyncio.fixture
async def engine(tmp_path: Path) -> AsyncIterator[CountingEngine]:
    (tmp_path / "tier").mkdir()
    opened = open_engine(read_tier(f"file://{tmp_path / 'tier'}"), {})
    yield CountingEngine(opened)
    await opened.close()


@pytest.mark.asyncio
async def test_leases_make_the_requests_that_the_model_counts(engine: CountingEngine) -> None:
    mine, theirs = Leases(engine), Leases(engine)  # type: ignore[arg-type]
    seen: dict[Operation, tuple[int, int]] = {}

    held = await mine.acquire(SHA)
    seen["take"] = engine.taken()
    assert isinstance(held, Held)
    assert isinstance(await theirs.acquire(SHA), Waiting)
    first = engine.taken()
    assert isinstance(await theirs.acquire(SHA), Waiting)
    seen["take again"] = engine.taken()
    await held.renew()
    seen["renew"] = engine.taken()
    await held.release()
    seen["release"] = engine.taken()

    model = Engine(engines(read_figures())["directory"]).model
    assert seen == {operation: model.requests(operation) for operation in seen}
    # Whoever finds the lease taken has tried to create it, and then looks at what stands there.
    take, look = model.requests("take"), model.requests("look")
    assert first == (take[0] + look[0], take[1] + look[1])
