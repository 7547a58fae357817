"""The model held against a real run: the same fleet is played many times, and what was counted must be among it.

Hits and writes follow from how the daemons work, and must be equal. How often one waits for another's compile depends
on the moments; there the count must be within the model's range, widened by a half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benches.fleet.figures import Figure
from benches.fleet.model import Fleet, Plan
from benches.fleet.scenarios import engines, plan_of

_PLAYS = 20
_EXACT = {"tier_hits": "hits", "tier_written": "written"}
_NEAR = {"tier_misses": "misses", "tier_waited": "waited"}
_WIDER = 1.5


def check(counted: Mapping[str, Any], figures: Mapping[str, Figure]) -> list[dict[str, Any]]:
    """Return a row for each counter: what was counted, what the model gives, and whether they fit."""
    plan = _plan(counted, figures)
    plays = [Fleet(replace(plan, seed=seed)).run() for seed in range(_PLAYS)]
    rows = []
    for counter, name in (_EXACT | _NEAR).items():
        values = [int(getattr(play, name)) for play in plays]
        found, least, most = int(counted["counters"][counter]), min(values), max(values)
        low, high = (least, most) if counter in _EXACT else (least / _WIDER, most * _WIDER)
        rows.append({"counter": counter, "counted": found, "least": least, "most": most, "fits": low <= found <= high})
    return rows


def _plan(counted: Mapping[str, Any], figures: Mapping[str, Figure]) -> Plan:
    plan = plan_of(figures, int(counted["nodes"]), engines(figures)["directory"])
    return replace(
        plan,
        trainers_per_node=int(counted["trainers"]) // int(counted["nodes"]),
        graphs=int(counted["graphs"]),
        workers=int(counted["workers"]),
        compile_s=float(counted["compile_s"]),
        start_s=float(counted["start_s"]),
        spread_s=float(counted["spread_s"]),
        between_graphs_s=float(counted["between_graphs_s"]),
    )
