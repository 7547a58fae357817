"""The questions: where one tier stops being enough, and what a deploy of a new torch costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from benches.fleet.engine import EngineModel, Kind
from benches.fleet.figures import Figure
from benches.fleet.model import Fleet, Outcome, Plan

SIZES = (4, 16, 64, 256, 1000)
"""Nodes."""

_DEPLOYS = ("cold", "cold, shuffled", "replayed")
_SPARE = 0.5
"""Of the busiest second."""

Say = Callable[[str], None]


def engines(figures: Mapping[str, Figure]) -> dict[Kind, EngineModel]:
    """Return the three tiers by kind."""
    value = {name: figure.value for name, figure in figures.items()}
    network = value["network_bytes_per_s"]
    return {
        "redis": EngineModel(
            kind="redis",
            reads_per_s=value["redis_gets_per_s"],
            writes_per_s=value["redis_gets_per_s"],
            bytes_per_s=network,
            latency_s=value["redis_latency_s"],
        ),
        "bucket": EngineModel(
            kind="bucket",
            reads_per_s=value["s3_gets_per_s"],
            writes_per_s=value["s3_puts_per_s"],
            bytes_per_s=math.inf,  # a bucket is many machines: what limits is a client's own card
            latency_s=value["s3_latency_s"],
        ),
        "directory": EngineModel(
            kind="directory",
            reads_per_s=value["directory_ops_per_s"],
            writes_per_s=value["directory_ops_per_s"],
            bytes_per_s=network,
            latency_s=value["directory_latency_s"],
        ),
    }


def plan_of(figures: Mapping[str, Figure], nodes: int, engine: EngineModel | None) -> Plan:
    """Return a cold deploy on so many nodes."""
    value = {name: figure.value for name, figure in figures.items()}
    return Plan(
        nodes=nodes,
        trainers_per_node=int(value["trainers_per_node"]),
        graphs=int(value["graphs"]),
        workers=int(value["workers"]),
        compile_s=value["compile_s"],
        worker_start_s=value["worker_start_s"],
        start_s=value["start_s"],
        between_graphs_s=value["between_graphs_s"],
        load_s=value["load_s"],
        spread_s=value["spread_s"],
        object_bytes=value["object_bytes"],
        facts_bytes=value["facts_bytes"],
        engine=engine,
    )


def play(figures: Mapping[str, Figure], sizes: tuple[int, ...], say: Say) -> dict[str, Any]:
    """Play all deploys; return the document."""
    models = engines(figures)
    rows: list[dict[str, Any]] = []

    def deploy(name: str, nodes: int, plan: Plan) -> Outcome:
        outcome = Fleet(plan).run()
        kind = plan.engine.kind if plan.engine else "none"
        rows.append({"deploy": name, "engine": kind, "nodes": nodes} | asdict(outcome))
        say(f"{name}, tier {kind}, {nodes} nodes: {outcome.seconds:.0f} s, {outcome.requests} requests")
        return outcome

    for nodes in sizes:
        alone = plan_of(figures, nodes, None)
        if nodes == sizes[0]:  # every node is for itself: the others are the same, more often
            deploy("without a tier", nodes, alone)
        for model in models.values():
            plan = replace(alone, engine=model)
            deploy("cold", nodes, plan)
            deploy("cold, shuffled", nodes, replace(plan, shuffled=True))
            deploy("replayed", nodes, replace(plan, replayed=True))
        deploy("replayed, at one moment", nodes, replace(alone, engine=models["bucket"], replayed=True, spread_s=0))
    budget_s = figures["lookup_budget_s"].value
    enough = [_enough(rows, kind, deploy, budget_s) for kind in models for deploy in _DEPLOYS]
    return {"rows": rows, "enough": enough}


def _enough(rows: list[dict[str, Any]], kind: Kind, deploy: str, budget_s: float) -> dict[str, Any]:
    """Say up to how many nodes a tier is enough: as played, and by arithmetic.

    The arithmetic is from the largest fleet that left the tier time to spare: one that fills it asks for less, because
    each answer is waited for.
    """
    played = sorted(
        (row for row in rows if (row["engine"], row["deploy"]) == (kind, deploy)), key=lambda row: int(row["nodes"])
    )
    idle = [row for row in played if row["peak_work"] <= _SPARE] or played[:1]
    basis = idle[-1]
    late = [row["nodes"] for row in played if row["delay_p99_s"] > budget_s]
    return {
        "engine": kind,
        "deploy": deploy,
        "basis_nodes": basis["nodes"],
        "peak_per_s_and_node": basis["peak_per_s"] / basis["nodes"],
        "peak_bytes_per_s_and_node": basis["peak_bytes_per_s"] / basis["nodes"],
        "wall_nodes": round(basis["nodes"] / basis["peak_work"]),
        "largest_played": played[-1]["nodes"],
        "late_from_nodes": late[0] if late else None,
    }
