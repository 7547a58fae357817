"""The explanation at the end of a run with `TORCH_COMPILE_CLIENT_EXPLAIN=1`: a line for each graph that missed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compile_client.transport.records import ExplainedGraph, GraphNote

_WHO = {"compiled_by_daemon": "compiled by the daemon", "compiled_here": "compiled here"}


def explanation_lines(
    missed: Sequence[GraphNote], explained: Sequence[ExplainedGraph] | None, kind: str = "graph"
) -> Iterator[str]:
    """Yield the lines: with what the daemon says of each graph, or without where it has not answered (None)."""
    if not missed:
        return
    if explained is None:
        yield f"the daemon cannot be asked what the {kind}s that were not there differ in; this is what is known here"
    explained_graphs = {graph.number: graph for graph in explained or ()}
    for graph in missed:
        told = explained_graphs.get(graph.number)
        name = f" {told.name}" if told is not None and told.name else ""
        line = f"{kind} {graph.number}{name} ({graph.key[:8] or 'no key'}) was {_WHO.get(graph.outcome, graph.outcome)}"
        if graph.reason:
            line += f" ({graph.reason}): {graph.message}"
        if told is not None and graph.key:
            line += f"; {told.sentence}" if graph.reason else f": {told.sentence}"
        yield line
        if told is not None:
            for text in told.differences:
                yield f"    {text}"
            if told.more:
                yield f"    and {told.more} more differences"
