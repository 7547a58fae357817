"""Graphs that a client might send to make the worker run its code, read its files or stay busy.

Each differs from a graph that compiles in one hostile thing only. Tests rebuild them, which must be refused.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import GraphSpec, NodeSpec, SymbolSpec, tensor_value
from compiler_daemon.worker.rebuild import rebuild
from compiler_daemon.worker.shapes import Shapes
from tests.worker.worker_samples import BODY, OUT, TENSOR, X, checked, graph, module, node

CODE = "__import__('os').system('touch stranger')"
SOON_S = 10.0
"""Far more time than any refusal takes, and far less than what is refused would take."""


def refuse(spec: GraphSpec) -> str:
    start = time.monotonic()
    with pytest.raises(MalformedError) as caught:
        rebuild(checked(spec))
    assert time.monotonic() - start < SOON_S
    return str(caught.value)


def nodes(*made: NodeSpec, **fields: Any) -> GraphSpec:
    return graph(modules=[module(list(made), **fields), BODY])


def calling(name: str, *args: Any, **fields: Any) -> GraphSpec:
    return nodes(X, node("call_function", "y", name, *(args or (["n", 0],)), **fields), OUT)


# Symbolic shapes: expressions, symbols and sources.


def name_of_symbol(source: list[Any]) -> str:
    """Return the name that torch gives to the symbol of the source."""
    for name in (f"s{number}" for number in range(100)):
        try:
            Shapes(graph(sources=[source], symbols=[symbol(name)]))
        except MalformedError as error:
            if "makes a symbol called" in str(error):
                return str(error).rsplit(" ", 1)[1]
        else:
            return name
    raise AssertionError("torch makes no symbol of the source")


def symbol(name: str, **fields: Any) -> SymbolSpec:
    plain: dict[str, Any] = {"hint": 5, "source": 0, "lower": None, "upper": None, "positive": None, "replacement": -1}
    return SymbolSpec(name=name, **{**plain, **fields})


SOURCE = ["LocalSource", ["local_name", "n"]]
OTHER_SOURCE = ["LocalSource", ["local_name", "m"]]
S = name_of_symbol(SOURCE)
M = name_of_symbol(OTHER_SOURCE)


def shaped(rows: list[Any], *, size: int | None = None, **fields: Any) -> GraphSpec:
    """Return a graph whose input has the size of the expression in the row `size`, by default the last."""
    row = len(rows) - 1 if size is None else size
    sized = dataclasses.replace(TENSOR, shape=[["x", row, "int"]], stride=[1], storage_bytes=["x", row, "int"])
    plain: dict[str, Any] = {"symbols": [symbol(S)], "sources": [SOURCE], "inputs": [tensor_value(sized)]}
    return graph(expressions=rows, dynamic_shapes=True, **{**plain, **fields})


def powers(head: str, base: list[Any], times: int) -> list[Any]:
    rows: list[Any] = [base, ["Integer", "9"]]
    for _ in range(times):
        rows.append([head, len(rows) - 1 if len(rows) > 2 else 0, 1])
    return rows


def doubled(head: str, times: int) -> list[Any]:
    rows: list[Any] = [["Symbol", S], ["Integer", "3"], ["Mod", 0, 1]]
    for _ in range(times):
        rows += [["FloorDiv", len(rows) - 1, 1], [head, len(rows), len(rows) - 1]]
    return rows
