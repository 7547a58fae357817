"""The nearest known request: the same program first, then the one from which the fewest differences lead here.

Reading a request costs milliseconds and there may be ten thousand, so that those to be read are chosen by what is known
without: program, environment, size. Both the number of those read and their bytes are bounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from compile_wire.digest import Digest
from compile_wire.graph.spec import GraphSpec
from compiler_daemon.insight.explain.difference import Difference
from compiler_daemon.insight.explain.differences import Request, differences
from compiler_daemon.insight.explain.nodes import overlap

Spec = TypeVar("Spec")

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


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchBounds:
    """Says how much a search may read, and what counts against a candidate before it is read."""

    max_read: int
    max_read_bytes: int
    max_candidates: int
    """At how many it looks at all, those that seem nearest first."""
    other_program: float
    """What another program costs beside the differences themselves, of which a plain one costs 1."""
    seems_other_program: float
    seems_other_environment: float
    """What counts against a candidate before it is read, beside the logarithm of the ratio of sizes."""


_GRAPHS = SearchBounds(
    max_read=48,
    max_read_bytes=4 * 2**20,
    max_candidates=192,
    other_program=1.0,
    seems_other_program=0.5,
    seems_other_environment=0.25,
)


def search_nearest(
    candidates: Collection[Candidate],
    bounds: SearchBounds,
    *,
    program: str,
    environment: Digest | None,
    size: int,
    read: Callable[[Digest], Spec | None],
    compare: Callable[[Candidate, Spec], tuple[Sequence[Difference], bool] | None],
) -> Nearest | None:
    """Return the candidate nearest to a request of `size` bytes; None where there is none that can be read.

    `read` gives a request by its digest, None where it cannot be had. `compare` returns the differences and whether the
    two are related; None for one that is not to be considered.
    """

    def far(candidate: Candidate) -> tuple[float, float]:
        apart = abs(math.log(max(1, candidate.bytes) / max(1, size)))
        apart += bounds.seems_other_program * (candidate.program != program)
        apart += bounds.seems_other_environment * (candidate.environment != environment)
        return apart, -candidate.created

    best: tuple[float, float, Nearest] | None = None
    budget = bounds.max_read_bytes
    specs: dict[Digest, Spec | None] = {}
    for candidate in sorted(candidates, key=far)[: bounds.max_candidates]:
        if candidate.graph not in specs:
            if len(specs) >= bounds.max_read or candidate.bytes > budget:
                continue
            budget -= candidate.bytes
            specs[candidate.graph] = read(candidate.graph)
        spec = specs[candidate.graph]
        compared = compare(candidate, spec) if spec is not None else None
        if compared is None:
            continue
        found, related = compared
        distance = sum(item.cost for item in found) + bounds.other_program * (candidate.program != program)
        if best is None or (distance, -candidate.created) < best[:2]:
            best = (distance, -candidate.created, Nearest(candidate=candidate, differences=found, related=related))
    return best[2] if best else None


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

    def compare(candidate: Candidate, spec: GraphSpec) -> tuple[Sequence[Difference], bool] | None:
        if ours.spec is None:
            return None
        theirs = Request(environment=fields.get(candidate.environment, {}), spec=spec)
        return differences(ours, theirs), overlap(ours.spec, spec) >= _RELATED

    return search_nearest(
        candidates, _GRAPHS, program=program, environment=environment, size=size, read=read, compare=compare
    )
