"""Imports the libraries whose operators a graph names, before it is rebuilt."""

from __future__ import annotations

from compile_torch.library_operators import Library, import_library, library_of_name
from compile_wire.graph.spec import GraphSpec

_OPERATOR = "op:"


def import_named(spec: GraphSpec) -> bool:
    """Import the libraries of the operators that a graph names; return whether one was not there before.

    Raises `MalformedError`, in words for people, where one cannot be imported here.
    """
    named: dict[str, Library] = {}
    for module in spec.modules:
        for node in module.nodes:
            if node.op == "call_function" and node.target.startswith(_OPERATOR):
                space, _, operator = node.target.removeprefix(_OPERATOR).partition(".")
                if (library := library_of_name(f"{space}::{operator}")) is not None:
                    named[space] = library
    new = [import_library(library) for _, library in sorted(named.items())]
    return any(new)
