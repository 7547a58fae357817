"""The shared parts of the wire's tests: valid specs and manifests, as samples and as strategies."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from compile_wire.digest import Digest
from compile_wire.graph.spec import (
    NODE_OPS,
    GraphSpec,
    ModuleSpec,
    NodeSpec,
    SymbolSpec,
    TensorSpec,
    tensor_value,
)
from compile_wire.manifest import BlobRef, Manifest

NO_NODES: dict[str, Any] = {"attributes": [], "scalars": ["d"], "tensors": [], "training": False}


def node(op: str = "placeholder", name: str = "x", **fields: Any) -> NodeSpec:
    plain: dict[str, Any] = {
        "target": name,
        "args": ["t"],
        "kwargs": ["d"],
        "type": "",
        "value": None,
        "source": -1,
        "static": "",
        "meta": ["d"],
    }
    return NodeSpec(op=op, name=name, **{**plain, **fields})


def module(nodes: list[NodeSpec] | None = None, **fields: Any) -> ModuleSpec:
    return ModuleSpec(**{**NO_NODES, "nodes": nodes or [], "children": [], "bodies": [], **fields})


def tensor(**fields: Any) -> TensorSpec:
    plain: dict[str, Any] = {
        "dtype": "float32",
        "device": "cpu",
        "device_index": None,
        "shape": [2, 3],
        "stride": [3, 1],
        "offset": 0,
        "requires_grad": False,
        "leaf": True,
        "parameter": False,
        "view": False,
        "inference": False,
        "storage": -1,
        "storage_bytes": 24,
        "item": None,
    }
    return TensorSpec(**{**plain, **fields})


def symbol(**fields: Any) -> SymbolSpec:
    plain: dict[str, Any] = {"name": "s0", "hint": 5, "source": -1, "lower": None, "upper": None, "positive": None}
    return SymbolSpec(**{**plain, "replacement": -1, **fields})


def graph(**fields: Any) -> GraphSpec:
    plain: dict[str, Any] = {
        "torch": "2.13.0",
        "modules": [module()],
        "inputs": [],
        "params": [],
        "symbols": [],
        "guards": [],
        "sources": [],
        "expressions": [],
        "dynamic_shapes": False,
        "state": {},
        "inductor": {},
        "functorch": {},
    }
    return GraphSpec(**{**plain, **fields})


def manifest(**fields: Any) -> Manifest:
    plain: dict[str, Any] = {
        "key": "a" * 53,
        "environment": Digest("e" * 64),
        "guards": "",
        "graph": "f" * 64,
        "compile_s": 1.5,
        "origin": "worker",
        "blobs": (BlobRef(role="entry", name="", sha256=Digest("0" * 64), size=10),),
    }
    return Manifest(**{**plain, **fields})


names = st.sampled_from("a x0 LocalSource Integer Add s0 wrap_body_0 float32 \u00e9 ..".split())
finite = st.floats(allow_nan=False)
integers = st.integers(-(2**63), 2**64 - 1)
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map(Digest)
plain_values = st.none() | st.booleans() | integers | finite | st.text(max_size=20)


def values(*, nodes: int = 0, expressions: int = 0) -> st.SearchStrategy[Any]:
    """Draw values of the form that `compile_wire.graph.spec` describes, nested as deeply as a graph's arguments."""
    leaves = plain_values | st.one_of(
        st.just(["e"]),
        st.integers().map(lambda number: ["i", str(number)]),
        st.tuples(finite, finite).map(lambda parts: ["c", *parts]),
        st.sampled_from(["dt", "ly", "mf", "f", "?"]).flatmap(lambda tag: names.map(lambda name: [tag, name])),
        st.tuples(names, st.none() | st.integers(0, 100)).map(lambda parts: ["dv", *parts]),
        st.tuples(names, st.none() | st.integers(-64, 63), st.none() | st.integers(1, 63)).map(
            lambda parts: ["P", *parts]
        ),
    )
    if nodes:
        leaves |= st.integers(0, nodes - 1).map(lambda row: ["n", row])
    if expressions:
        leaves |= st.tuples(st.integers(0, expressions - 1), st.sampled_from(["int", "float", "bool"])).map(
            lambda parts: ["x", *parts]
        )
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.sampled_from(["l", "t", "z"]).flatmap(lambda tag: st.lists(inner).map(lambda items: [tag, *items])),
            st.lists(st.tuples(inner, inner)).map(lambda pairs: ["d", *(part for pair in pairs for part in pair)]),
            st.tuples(inner, inner, inner).map(lambda parts: ["s", *parts]),
        ),
        max_leaves=3,
    )


@st.composite
def tensors(draw: st.DrawFn, expressions: int) -> TensorSpec:
    sizes = st.integers(0, 2**63 - 1)
    if expressions:
        sizes |= st.integers(0, expressions - 1).map(lambda row: ["x", row, "int"])
    rank = draw(st.integers(0, 4))
    flags = {name: draw(st.booleans()) for name in ("requires_grad", "leaf", "parameter", "view", "inference")}
    return tensor(
        dtype=draw(names),
        device=draw(names),
        device_index=draw(st.none() | st.integers(0, 7)),
        shape=[draw(sizes) for _ in range(rank)],
        stride=[draw(sizes) for _ in range(rank)],
        offset=draw(sizes),
        storage=draw(st.integers(-1, 5)),
        storage_bytes=draw(sizes),
        item=draw(values(expressions=expressions)),
        **flags,
    )


@st.composite
def sources(draw: st.DrawFn) -> list[Any]:
    rows: list[Any] = []
    for row in range(draw(st.integers(0, 4))):
        fields: list[Any] = []
        for name in draw(st.lists(names, max_size=3)):
            value = draw(plain_values | st.just(["E", "TensorProperty", "SIZE"]))
            fields += [name, ["t", ["S", draw(st.integers(0, row - 1))], value] if row else value]
        rows.append([draw(names), fields])
    return rows


@st.composite
def expressions(draw: st.DrawFn) -> list[Any]:
    rows: list[Any] = []
    for row in range(draw(st.integers(0, 5))):
        literals = draw(st.lists(names, max_size=2))
        rows.append([draw(names), *(draw(st.integers(0, row - 1)) if row else text for text in literals)])
    return rows


@st.composite
def modules(draw: st.DrawFn, row: int, count: int, source_rows: int, expression_rows: int) -> ModuleSpec:
    made = [
        node(
            op=draw(st.sampled_from(NODE_OPS)),
            name=draw(names),
            target=draw(st.text(max_size=30)),
            args=draw(values(nodes=position, expressions=expression_rows)),
            kwargs=draw(values(nodes=position)),
            type=draw(names),
            value=draw(values()),
            source=draw(st.integers(-1, source_rows - 1)),
            static=draw(names),
            meta=draw(values(nodes=position)),
        )
        for position in range(draw(st.integers(0, 3)))
    ]
    bodies = draw(st.lists(st.integers(row + 1, count - 1), max_size=3)) if row + 1 < count else []
    held = draw(st.lists(st.tuples(st.sampled_from(["parameter", "buffer"]), names, tensors(expression_rows))))
    return module(
        made,
        attributes=draw(st.lists(names, max_size=3)),
        scalars=draw(values()),
        tensors=[[kind, name, tensor_value(spec)] for kind, name, spec in held[:2]],
        training=draw(st.booleans()),
        children=[f"child{number}" for number in range(len(bodies))],
        bodies=bodies,
    )


@st.composite
def graphs(draw: st.DrawFn) -> GraphSpec:
    """Draw specs of the right form; the things that they name need not exist."""
    source_rows, expression_rows = draw(sources()), draw(expressions())
    rows = len(expression_rows)
    bounds = st.none() | st.integers(0, rows - 1) if rows else st.none()
    count = draw(st.integers(1, 3))
    settings = st.dictionaries(names, values(), max_size=2)
    return graph(
        torch=draw(names),
        modules=[draw(modules(row, count, len(source_rows), rows)) for row in range(count)],
        inputs=draw(st.lists(tensors(rows).map(tensor_value) | values(expressions=rows), max_size=2)),
        params=[[draw(names), draw(st.integers(0, len(source_rows) - 1))]] if source_rows else [],
        symbols=[
            symbol(
                name=draw(names),
                hint=draw(integers | finite),
                source=draw(st.integers(-1, len(source_rows) - 1)),
                lower=draw(bounds),
                upper=draw(bounds),
                positive=draw(st.none() | st.booleans()),
                replacement=draw(st.integers(-1, rows - 1)),
            )
            for _ in range(draw(st.integers(0, 2)))
        ],
        guards=draw(st.lists(st.integers(0, rows - 1), max_size=3)) if rows else [],
        sources=source_rows,
        expressions=expression_rows,
        dynamic_shapes=draw(st.booleans()),
        state=draw(settings),
        inductor=draw(settings),
        functorch=draw(settings),
    )


object_refs = st.builds(
    BlobRef,
    role=st.just("object"),
    name=st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,40}", fullmatch=True),
    sha256=digests,
    size=st.integers(0, 2**20),
)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    entry = BlobRef(role="entry", name="", sha256=draw(digests), size=draw(st.integers(0, 2**20)))
    return manifest(
        key=draw(st.text(min_size=1, max_size=80)),
        environment=draw(digests),
        guards=draw(st.text(max_size=80)),
        graph=draw(st.just("") | digests),
        compile_s=draw(st.floats(0, allow_nan=False, allow_infinity=False)),
        origin=draw(st.sampled_from(["worker", "trainer", "replay"])),
        blobs=tuple(draw(st.permutations([entry, *draw(st.lists(object_refs, max_size=3))]))),
    )
