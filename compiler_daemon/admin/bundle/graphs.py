"""Files of graphs, for whoever compiles them again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from compile_wire.digest import Digest
from compile_wire.limits import MAX_GRAPH_BYTES
from compiler_daemon.admin.bundle.reader import Bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphRequest:
    """One graph of a file of graphs, ready to be compiled again."""

    environment: Digest
    fields: Mapping[str, str]
    """Of the environment it was asked for in."""
    key: str
    program: str
    digest: Digest
    data: bytes
    """A GraphSpec, encoded; check it with `compile_wire.graph.decode.decode_graph`."""


def read_graphs(path: Path) -> Iterator[GraphRequest]:
    """Yield what `export --graphs` wrote, one graph in memory at a time, in the order of the file.

    Raises `BundleError`, before the first, where the file is not one; and later where an item is damaged.
    """
    with Bundle.open(path, kind="graphs") as bundle:
        yield from graphs_of(bundle)


def graphs_of(bundle: Bundle) -> Iterator[GraphRequest]:
    """Yield the graphs of an open file, one in memory at a time; raise `BundleError` where one is damaged."""
    for one in bundle.index.requests:
        yield GraphRequest(
            environment=one.environment,
            fields=bundle.index.environments[one.environment],
            key=one.key,
            program=one.program,
            digest=one.graph,
            data=bundle.read(one.graph, max_bytes=MAX_GRAPH_BYTES),
        )
