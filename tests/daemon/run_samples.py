"""The shared parts of the tests of runs: small graphs made by hand, and reports about them."""

from __future__ import annotations

import itertools
from typing import Any

from compile_wire.digest import digest_of
from compile_wire.graph.spec import GraphSpec, ModuleSpec, NodeSpec, TensorSpec, encode_graph, tensor_value
from compile_wire.v1 import runs_pb2 as pb

_numbers = itertools.count(16, 16)  # names that differ only in the last digit may belong to one process


def run_name() -> str:
    """Return a name of a run that no other test has used."""
    return f"{next(_numbers):032x}"


def node(op: str, name: str, target: str, *args: Any, source: int = -1) -> NodeSpec:
    return NodeSpec(
        op=op, name=name, target=target, args=["t", *args], kwargs=["d"], type="", value=None, source=source, static="",
        meta=["d"],
    )  # fmt: skip


def graph(*, shape: tuple[int, int] = (8, 4), operator: str = "torch.relu", threads: int = 2) -> bytes:
    """Return a graph with one operator on one input `x`."""
    tensor = TensorSpec(
        dtype="float32", device="cpu", device_index=None, shape=list(shape), stride=[shape[1], 1], offset=0,
        requires_grad=False, leaf=True, parameter=False, view=False, inference=False, storage=0,
        storage_bytes=4 * shape[0] * shape[1], item=None,
    )  # fmt: skip
    nodes = [
        node("placeholder", "l_x_", "L_x_", source=0),
        node("call_function", "y", operator, ["n", 0]),
        node("output", "output", "output", ["t", ["n", 1]]),
    ]
    module = ModuleSpec(attributes=[], scalars=["d"], tensors=[], training=True, nodes=nodes, children=[], bodies=[])
    return encode_graph(
        GraphSpec(
            torch="2.13.0",
            modules=[module],
            inputs=[tensor_value(tensor)],
            params=[],
            symbols=[],
            guards=[],
            sources=[["LocalSource", ["local_name", "x"]]],
            expressions=[],
            dynamic_shapes=False,
            state={"threads": threads},
            inductor={},
            functorch={},
        )
    )


def report(number: int, key: str, outcome: str = "COMPILED_BY_DAEMON", **fields: Any) -> pb.GraphReport:
    """Return the report on one graph, which was requested ten seconds ago unless a field says otherwise."""
    spec = fields.pop("spec", None)
    return pb.GraphReport(
        number=number,
        key=key,
        outcome=pb.GraphOutcome.Value(f"GRAPH_OUTCOME_{outcome}"),
        **{"graph_sha256": digest_of(spec) if spec else "", "age_s": 0.0, **fields},
    )
