"""An explanation as a person reads it."""

from __future__ import annotations

from rich.console import Console
from rich.tree import Tree

from compiler_daemon.admin.answers import Explanation, MissedGraph, NearestKnown, RunSummary
from compiler_daemon.admin.plain import plain
from compiler_daemon.text import numbers

_OUTCOMES = {
    "compiled_by_daemon": "compiled by the daemon",
    "compiled_here": "compiled in the trainer",
    "hit": "from the store",
    "hit_local": "from torch's own cache",
}
_LINE = 4000
_COLOURS = {"compiled_by_daemon": "yellow", "compiled_here": "red"}


def print_explanation(answer: Explanation) -> None:
    """Print what `ExplainRun` answered, one branch for each graph."""
    console = Console()
    if not console.is_terminal:  # for searching and cutting: one line each, however long
        console = Console(width=_LINE)
    tree = Tree(plain(_heading(answer)))
    for graph in answer.graphs:
        _add(tree, graph)
    if answer.more:
        tree.add(f"and {answer.more} more")
    console.print(tree)


def _heading(answer: Explanation) -> str:
    run, kernels = answer.run, answer.kernels
    if run is None:
        return "a key that belongs to no run that is remembered"
    counted = [("graph", run)] if kernels is None or kernels.run != run.run else []
    counted += [("kernel", kernels)] if kernels else []
    name = run.program or "a program without a name"
    ended = "" if run.ended else ", not ended as far as is known"
    heading = f"{name} (process {run.pid}{ended}): " + "; ".join(_count(word, one) for word, one in counted)
    if run.fallbacks:
        heading += "; failures with the daemon: " + ", ".join(f"{name} {n}" for name, n in run.fallbacks.items())
    if not answer.graphs:
        heading += ". Nothing was missed."
    return heading


def _count(word: str, run: RunSummary) -> str:
    there = run.hits + run.hits_local
    total = there + run.compiled_by_daemon + run.compiled_here
    saved = f", {numbers.seconds(run.seconds_saved)} saved" if run.seconds_saved else ""
    return f"{total} {word}{'' if total == 1 else 's'}, {there} of them there{saved}"


def _add(tree: Tree, graph: MissedGraph) -> None:
    number = f"{graph.kind} {graph.number} " if graph.number else ""
    number += f"{graph.name} " if graph.name else ""
    title = plain(f"{number}{graph.key[:16] or 'without a key'}: ")
    title.append_text(plain(_OUTCOMES.get(graph.outcome, graph.outcome), _COLOURS.get(graph.outcome, "")))
    branch = tree.add(title)
    if graph.reason:
        branch.add(plain(f"compiled in the trainer because: {graph.reason}: {graph.message}"))
    elif graph.message:
        branch.add(plain(graph.message))
    leaf = branch.add(plain(graph.sentence + _nearest(graph.nearest)))
    for told in graph.differences:
        leaf.add(plain(told))
    if graph.more:
        leaf.add(f"and {graph.more} more differences")


def _nearest(nearest: NearestKnown | None) -> str:
    if nearest is None:
        return ""
    return f" (nearest: {nearest.key[:16]} of {nearest.program or 'a program without a name'})"
