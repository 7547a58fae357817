"""What the page of one graph shows: its artifact, and the graph it was compiled from where that is kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compile_wire.digest import Digest, parse_digest
from compile_wire.errors import WireError
from compile_wire.graph_check import decode_graph
from compile_wire.graph_spec import GraphSpec, NodeSpec, Value, tensor_from
from compile_wire.manifest import Manifest, decode_manifest
from compiler_daemon.store import ArtifactRow, Store, StoreError

_MAX_GRAPH_BYTES = 4 * 2**20
"""Of graphs that are read for the page; one with a thousand nodes has a few hundred kilobytes."""
_MAX_INPUTS = 400
_MAX_OPERATORS = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Input:
    """One input of a graph."""

    name: str
    kind: str
    shape: str
    dtype: str
    device: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What a graph is made of."""

    torch: str
    nodes: int
    symbols: str
    inputs: Sequence[Input]
    more_inputs: int
    operators: Sequence[tuple[str, int]]
    more_operators: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphView:
    """One graph."""

    now: float
    row: ArtifactRow
    manifest: Manifest
    environment: Mapping[str, str]
    contents: Contents | None
    absent: str
    """Why there are no contents."""
    code: str
    """The graph as Python would have it; empty where it cannot be written so."""


def look(store: Store, text: str) -> GraphView | None:
    """Return what is known of the artifact with this digest; None where there is none. In a thread."""
    try:
        digest = parse_digest(text)
    except WireError:
        return None
    found = store.artifact_row(digest)
    if found is None:
        return None
    row, manifest = found
    contents, absent = _contents(store, row.graph)
    return GraphView(
        now=time.time(),
        row=row,
        manifest=decode_manifest(manifest),
        environment=dict(sorted(store.environments().get(row.environment, {}).items())),
        contents=contents,
        absent=absent,
        code="",
    )


def _contents(store: Store, graph: str) -> tuple[Contents | None, str]:
    if not graph:
        return None, "The trainer could not describe this graph as data, so only the artifact is kept."
    try:
        data = store.get_graph(Digest(graph))
        if len(data) > _MAX_GRAPH_BYTES:
            return None, "The graph is too large to be shown here."
        return read_contents(decode_graph(data)), ""
    except StoreError:
        return None, "The graph is not kept any more."
    except WireError:
        return None, "The graph is of a form that this version cannot read."


def read_contents(spec: GraphSpec) -> Contents:
    """Return what there is to see of a graph."""
    nodes = [node for module in spec.modules for node in module.nodes]
    placeholders = [node for node in spec.modules[0].nodes if node.op == "placeholder"] if spec.modules else []
    parameters = {str(row[0]) for row in spec.params if isinstance(row, list) and row}
    operators = Counter(node.target for node in nodes if node.op in ("call_function", "call_method"))
    return Contents(
        torch=spec.torch,
        nodes=len(nodes),
        symbols=", ".join(f"{symbol.name} = {symbol.hint} when captured" for symbol in spec.symbols[:16]),
        inputs=[_input(spec, node, parameters) for node in placeholders[:_MAX_INPUTS]],
        more_inputs=max(0, len(placeholders) - _MAX_INPUTS),
        operators=operators.most_common(_MAX_OPERATORS),
        more_operators=max(0, len(operators) - _MAX_OPERATORS),
    )


def _input(spec: GraphSpec, node: NodeSpec, parameters: set[str]) -> Input:
    match node.value:
        case ["T", *_]:
            tensor = tensor_from(node.value)
            is_parameter = tensor.parameter or node.target in parameters or node.name in parameters
            device = tensor.device if tensor.device_index is None else f"{tensor.device}:{tensor.device_index}"
            return Input(
                name=node.name,
                kind="parameter" if is_parameter else "tensor",
                shape=" \u00d7 ".join(_size(spec, size) for size in tensor.shape) or "scalar",
                dtype=tensor.dtype,
                device=device,
            )
        case ["x", row, str(kind)]:
            return Input(name=node.name, kind="number", shape=_expression(spec, row), dtype=kind, device="")
        case _:
            return Input(name=node.name, kind=node.type or "value", shape="", dtype="", device="")


def _size(spec: GraphSpec, size: Value) -> str:
    return str(size) if isinstance(size, int) else _expression(spec, size[1])


def _expression(spec: GraphSpec, row: int) -> str:
    """A symbol by its name; anything longer only as what it is."""
    match spec.expressions[row]:
        case ["Symbol" | "Integer", str(text)]:
            return text
        case [str(head), *_]:
            return f"{head}(\u2026)"
        case _:
            return "?"
