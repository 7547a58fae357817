"""What the page of one graph shows: its artifact, and the graph it was compiled from where that is kept."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compile_wire.digest import Digest, parse_digest
from compile_wire.errors import WireError
from compile_wire.graph.spec import GraphSpec
from compile_wire.kernel.environment import is_kernel_environment
from compile_wire.kernel.spec import KernelSpec
from compile_wire.manifest import Manifest, decode_manifest
from compiler_daemon.insight.explain.reading import MAX_READ_BYTES, read_graph, read_kernel
from compiler_daemon.insight.graph_text import GraphText, InputText, SymbolText
from compiler_daemon.insight.kernel_text import KernelText
from compiler_daemon.store import ArtifactRow, Store, StoreError

_MAX_INPUTS = 400
_MAX_OPERATORS = 24
_MAX_CODE = 200_000
"""Characters of code; `compiler-daemon show` has no such bound."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """Says what a graph is made of."""

    what: str
    """One line: how large it is, and what captured it."""
    inputs: Sequence[InputText]
    more_inputs: int
    symbols: Sequence[SymbolText]
    operators: Sequence[tuple[str, int]]
    more_operators: int
    code: str
    more_code: int
    """Characters left out."""


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
    environment = dict(sorted(store.environments().get(row.environment, {}).items()))
    contents, absent = _contents(store, row.graph, is_kernel=is_kernel_environment(environment))
    return GraphView(
        now=time.time(),
        row=row,
        manifest=decode_manifest(manifest),
        environment=environment,
        contents=contents,
        absent=absent,
    )


def _contents(store: Store, graph: str, *, is_kernel: bool) -> tuple[Contents | None, str]:
    if not graph:
        return None, "The trainer could not describe this graph as data, so only the artifact is kept."
    try:
        data = store.get_graph(Digest(graph))
    except StoreError:
        return None, "The graph is not kept any more."
    if len(data) > MAX_READ_BYTES:
        return None, "The graph is too large to be shown here; `compiler-daemon show` has it."
    contents: Contents | None = None
    if is_kernel:
        contents = kernel_contents(kernel) if (kernel := read_kernel(data)) else None
    elif (spec := read_graph(data)) is not None:
        contents = read_contents(spec)
    return contents, "" if contents else "The graph is of a form that this version cannot read."


def read_contents(spec: GraphSpec) -> Contents:
    """Return what there is to see of a graph."""
    text = GraphText(spec)
    nodes = [node for module in spec.modules for node in module.nodes]
    operators = Counter(node.target for node in nodes if node.op in ("call_function", "call_method"))
    inputs, code = text.inputs(), text.code()
    return Contents(
        what=f"{len(nodes)} nodes, captured by torch {spec.torch}",
        inputs=inputs[:_MAX_INPUTS],
        more_inputs=max(0, len(inputs) - _MAX_INPUTS),
        symbols=text.symbols()[:_MAX_INPUTS],
        operators=operators.most_common(_MAX_OPERATORS),
        more_operators=max(0, len(operators) - _MAX_OPERATORS),
        code=code[:_MAX_CODE],
        more_code=max(0, len(code) - _MAX_CODE),
    )


def kernel_contents(spec: KernelSpec) -> Contents:
    """Return what there is to see of a Triton kernel."""
    code = KernelText(spec).code()
    return Contents(
        what="A Triton kernel",
        inputs=(),
        more_inputs=0,
        symbols=(),
        operators=(),
        more_operators=0,
        code=code[:_MAX_CODE],
        more_code=max(0, len(code) - _MAX_CODE),
    )
