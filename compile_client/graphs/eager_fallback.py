"""Leaving torch's compiler once it has told the key: the graph runs eagerly, as dynamo captured it.

The one seam for everything that does not compile at once. Whoever knows that a graph is not to be compiled now raises
`RunEagerly` inside torch's own lookup, with what to run instead; `compile_or_run_eagerly` catches it around the
compile.

Guarantees: `RunEagerly` is no `Exception`, so nothing of torch's takes it for a failed lookup or a failed compile,
counts it or saves anything because of it; every context that torch has entered by then is left in order (they are
context managers all, and the lookup comes before the graph is changed). dynamo sees a backend that has returned a
function.

What runs is dynamo's graph with torch's ordinary operators: forward by itself, backward through autograd. Its numbers
are eager numbers, equal to compiled ones within rounding; random numbers are drawn in another order.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from compile_client.graphs.rounds import Rounds


class RunEagerly(BaseException):
    """Not compiled now; `run` is what the graph is called as instead."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__("the graph runs eagerly")
        self.run = run


class NotLoadedError(BaseException):
    """torch does not find what was put in place for it. No `Exception`, for the same reason as `RunEagerly`."""


def compile_or_run_eagerly(compile_graph: Callable[[], Any]) -> Any:
    """Return what `compile_graph` returns, or what a `RunEagerly` raised inside it says to run."""
    try:
        return compile_graph()
    except RunEagerly as deferred:
        return deferred.run


def run_eager(gm: torch.fx.GraphModule, rounds: Rounds | None = None) -> Callable[..., Any]:
    """Return a function that runs the graph's operators one by one, and tells `rounds` of it."""
    graph = rounds.new_graph() if rounds is not None else 0

    def run(*args: Any) -> Any:
        if rounds is not None:
            rounds.ran(graph)
        return gm(*args)

    return run


def can_run_eagerly(gm: torch.fx.GraphModule, example_inputs: Sequence[Any]) -> bool:
    """Whether the graph has the form that dynamo gives it, so that nothing wraps its inputs or outputs on the way.

    torch changes graphs of another form (that return no tuple, or take nested inputs) before it computes their key.
    """
    nodes = list(gm.graph.nodes)
    return (
        bool(nodes)
        and nodes[-1].op == "output"
        and isinstance(nodes[-1].args[0], (list, tuple))
        and type(gm.graph._codegen) is torch.fx.graph.CodeGen
        and not any(isinstance(value, (list, tuple, dict)) for value in example_inputs)
    )


def is_static(args: Sequence[Any]) -> bool:
    """Whether no size of the (fake) inputs is symbolic: then a cache hit puts no guard into dynamo's shape environment,
    and which graphs dynamo makes next does not depend on whether this one was compiled.
    """
    return not any(
        isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))
        or (isinstance(value, torch.Tensor) and value._has_symbolic_sizes_strides)
        for value in args
    )


def code_name() -> str:
    """Return the function that dynamo traces now, as `name (file:line)` without folders; empty where none is."""
    try:
        from torch._dynamo.symbolic_convert import InstructionTranslator

        code = InstructionTranslator.current_tx().f_code
        return f"{code.co_name} ({code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno})"
    except (ImportError, AttributeError):  # outside of dynamo, or a torch that keeps it elsewhere
        return ""
