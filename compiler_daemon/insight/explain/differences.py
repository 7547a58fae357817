"""All differences between two requests, the most telling first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compile_wire.graph.spec import GraphSpec
from compiler_daemon.insight.explain.difference import Difference
from compiler_daemon.insight.explain.inputs import compare_inputs
from compiler_daemon.insight.explain.nodes import compare_nodes
from compiler_daemon.insight.explain.settings import settings_differences, symbol_differences
from compiler_daemon.insight.explain.surroundings import environment_differences

__all__ = ["Difference", "Request", "differences"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What decides a key: the environment's fields, and the graph where it is known."""

    environment: Mapping[str, str]
    spec: GraphSpec | None = None


def differences(ours: Request, theirs: Request) -> list[Difference]:
    """Return in what `ours` differs from `theirs`; each text says what is, then what was.

    Empty where nothing that is known of the two differs.
    """
    found = environment_differences(ours.environment, theirs.environment)
    if ours.spec is not None and theirs.spec is not None:
        found += _graph_differences(ours.spec, theirs.spec, torch_told=any(item.kind == "torch" for item in found))
    return sorted(found, key=lambda item: (item.place, -item.cost))


def _graph_differences(ours: GraphSpec, theirs: GraphSpec, *, torch_told: bool) -> list[Difference]:
    found: list[Difference] = []
    if ours.torch != theirs.torch and not torch_told:
        found.append(Difference(kind="torch", text=f"torch {ours.torch}, was {theirs.torch}", cost=2.0))
    found += _rank_differences(ours, theirs)
    inputs = compare_inputs(ours, theirs)
    found += inputs.differences
    found += compare_nodes(ours, theirs, pairs=inputs.pairs, sizes=inputs.sizes, dynamic=inputs.dynamic)
    found += settings_differences(ours, theirs)
    if not inputs.dynamic:
        found += symbol_differences(ours, theirs)
    elif not any(item.kind == "dynamic" for item in found):
        now = "dynamic" if ours.dynamic_shapes else "static"
        text = f"compiled with {now} shapes, was {'dynamic' if theirs.dynamic_shapes else 'static'}"
        found.append(Difference(kind="dynamic", text=text, cost=2.0))
    return found


def _rank_differences(ours: GraphSpec, theirs: GraphSpec) -> list[Difference]:
    """Return in what the ranks differ that two graphs were traced on, or the groups and meshes of these ranks."""
    now, before = _rank(ours), _rank(theirs)
    if now != before:
        return [Difference(kind="rank", text=f"compiled for {now}, was for {before}")]
    if (ours.ranks, ours.meshes) != (theirs.ranks, theirs.meshes):
        return [Difference(kind="rank", text="the groups of ranks or their meshes are others")]
    return []


def _rank(spec: GraphSpec) -> str:
    return f"rank {spec.ranks[0]} of {spec.ranks[1]}" if spec.ranks else "no rank"
