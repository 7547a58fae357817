"""The nearest known request: the same program first, then the one from which the fewest differences lead here.

Reading a graph costs milliseconds and there may be ten thousand, so that those to be read are chosen by what is known
without: program, environment, size. Both the number of graphs read and their bytes are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from compile_wire.digest import Digest
from compile_wire.graph.spec import GraphSpec
from compiler_daemon.insight.explain.difference import Difference
from compiler_daemon.insight.explain.differences import Request, differences
from compiler_daemon.insight.explain.nodes import overlap

_MAX_READ = 48
_MAX_READ_BYTES = 4 * 2**20
_OTHER_PROGRAM = 1.0
"""What another program costs, beside the differences themselves: about as much as one of them."""
_RELATED = 0.5
"""Two graphs with less of their operators in common have nothing to do with each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A request that is known."""

    environment: Digest
    key: str
    graph: Digest
    program: str
    bytes: int
    created: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Nearest:
    """The request that comes closest, and what is different about it."""

    candidate: Candidate
    differences: Sequence[Difference]
    related: bool
    """Whether the two have most of their operators in common."""


def find_nearest(
    ours: Request,
    candidates: Collection[Candidate],
    *,
    program: str,
    environment: Digest,
    size: int,
    fields: Mapping[Digest, Mapping[str, str]],
    read: Callable[[Digest], GraphSpec | None],
) -> Nearest | None:
    """Return the candidate nearest to a graph of `size` bytes; None where there is none that can be read.

    `fields` are the known environments; `read` gives a graph by its digest, None where it cannot be had.
    """

    def far(candidate: Candidate) -> tuple[float, float]:
        apart = abs(math.log(max(1, candidate.bytes) / max(1, size)))
        apart += 0.5 * (candidate.program != program) + 0.25 * (candidate.environment != environment)
        return apart, -candidate.created

    best: tuple[float, float, Nearest] | None = None
    budget = _MAX_READ_BYTES
    graphs: dict[Digest, GraphSpec | None] = {}
    for candidate in sorted(candidates, key=far)[: 4 * _MAX_READ]:
        if candidate.graph not in graphs:
            if len(graphs) >= _MAX_READ or candidate.bytes > budget:
                continue
            budget -= candidate.bytes
            graphs[candidate.graph] = read(candidate.graph)
        spec = graphs[candidate.graph]
        if spec is None or ours.spec is None:
            continue
        found = differences(ours, Request(environment=fields.get(candidate.environment, {}), spec=spec))
        distance = sum(item.cost for item in found) + _OTHER_PROGRAM * (candidate.program != program)
        if best is None or (distance, -candidate.created) < best[:2]:
            related = overlap(ours.spec, spec) >= _RELATED
            best = (distance, -candidate.created, Nearest(candidate=candidate, differences=found, related=related))
    return best[2] if best else None
