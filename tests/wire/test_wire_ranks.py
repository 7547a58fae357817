"""What a graph says of ranks and meshes is checked for form before anything uses it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from compile_wire.errors import MalformedError
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import (
    DTensorSpec,
    GraphSpec,
    MeshSpec,
    TensorSpec,
    Value,
    dtensor_from,
    dtensor_value,
    encode_graph,
    tensor_value,
)
from compile_wire.packing import pack, unpack
from tests.wire.wire_samples import graph as graph_spec

_PART = tensor_value(
    TensorSpec(
        dtype="float32", device="cpu", device_index=None, shape=[2, 3], stride=[3, 1], offset=0, requires_grad=False,
        leaf=True, parameter=False, view=False, inference=False, storage=0, storage_bytes=24, item=None,
    )
)  # fmt: skip
_TENSOR = DTensorSpec(
    mesh=0,
    placements=[["P", "S", 0, None]],
    shape=["t", 4, 3],
    stride=[3, 1],
    requires_grad=True,
    leaf=True,
    parameter=True,
    part=_PART,
)
_MESH = MeshSpec(device="cpu", ranks=[0, 1], axes=[[[2], [1]]], names=["tp"], groups=["0"], root=-1, flattened="")
_PARTLY = MeshSpec(device="cpu", ranks=[], axes=[[[2], [1]]], names=["tp"], groups=["0"], root=0, flattened="")
_RANKS: list[Value] = [1, 2, ["l", "0", 0, 1]]


def _graph(**changes: Any) -> GraphSpec:
    inputs = [["M", 0], dtensor_value(_TENSOR)]
    return dataclasses.replace(graph_spec(), **({"inputs": inputs, "ranks": _RANKS, "meshes": [_MESH]} | changes))


def test_ranks_meshes_and_their_tensors_arrive_as_they_were_sent() -> None:
    spec = decode_graph(encode_graph(_graph()))

    assert (spec.ranks, spec.meshes) == (_RANKS, [_MESH])
    assert dtensor_from(spec.inputs[1]) == _TENSOR


def test_a_part_of_a_mesh_arrives_with_the_whole_one() -> None:
    flat = dataclasses.replace(_PARTLY, flattened="f")
    spec = decode_graph(encode_graph(_graph(meshes=[_MESH, flat, _PARTLY])))

    assert spec.meshes == [_MESH, flat, _PARTLY]


def test_a_graph_without_ranks_has_the_bytes_that_it_always_had() -> None:
    fields = unpack(encode_graph(graph_spec()), max_bytes=1 << 20, what="graph", max_lists=10_000)

    assert isinstance(fields, dict)
    assert not {"ranks", "meshes"} & set(fields)
    assert decode_graph(pack({**fields, "ranks": [], "meshes": []})) == graph_spec()


def _mesh(**changes: Any) -> Callable[[], GraphSpec]:
    return lambda: _graph(meshes=[dataclasses.replace(_MESH, **changes)])


def _tensor(**changes: Any) -> Callable[[], GraphSpec]:
    return lambda: _graph(inputs=[dtensor_value(dataclasses.replace(_TENSOR, **changes))])


MALFORMED: dict[str, Callable[[], GraphSpec]] = {
    "a rank that is not there": lambda: _graph(ranks=[2, 2, ["l", "0", 0, 1]]),
    "no number of ranks": lambda: _graph(ranks=[0]),
    "far too many ranks": lambda: _graph(ranks=[0, 1 << 20, ["l", "0", 0]]),
    "a group of a rank that is not there": lambda: _graph(ranks=[1, 2, ["l", "0", 0, 2]]),
    "a group without ranks": lambda: _graph(ranks=[1, 2, ["l", "0"]]),
    "a group twice": lambda: _graph(ranks=[1, 2, ["l", "0", 0, 1], ["l", "0", 1]]),
    "a group that is no list": lambda: _graph(ranks=[1, 2, "0"]),
    "a group with a number for a name": lambda: _graph(ranks=[1, 2, ["l", 0, 0, 1]]),
    "a mesh without its groups": lambda: _graph(ranks=[]),
    "a mesh of an unknown group": _mesh(groups=["1"]),
    "a mesh with a group too many": _mesh(groups=["0", "0"]),
    "a mesh with a name too many": _mesh(names=["a", "b"]),
    "a mesh with a place too many": _mesh(axes=[[[3], [1]]]),
    "a mesh of nothing": _mesh(axes=[[[0], [1]]], ranks=[]),
    "a mesh with a rank twice": _mesh(ranks=[1, 1]),
    "a mesh with text for a rank": _mesh(ranks=["0", 1]),
    "a mesh whose sizes would overflow": _mesh(
        axes=[[[1 << 16], [1]], [[1 << 16], [1]]], groups=["0", "0"], names=None
    ),
    "a mesh of many places and few ranks": _mesh(axes=[[[2] * 8, [1] * 8]]),
    "a mesh whose axis is a number": _mesh(axes=[2]),
    "a mesh whose axis has no strides": _mesh(axes=[[[2]]]),
    "a mesh whose axis has a stride too few": _mesh(axes=[[[2], []]]),
    "a mesh that goes nowhere": _mesh(axes=[[[2], [0]]]),
    "a mesh that is a part of itself": _mesh(root=0, ranks=[]),
    "a mesh that is a part of a later one": lambda: _graph(meshes=[_PARTLY, _MESH]),
    "a mesh that is a part of a part": lambda: _graph(meshes=[_MESH, _PARTLY, dataclasses.replace(_PARTLY, root=1)]),
    "a part with ranks of its own": lambda: _graph(meshes=[_MESH, dataclasses.replace(_PARTLY, ranks=[0, 1])]),
    "a part that is larger than the whole": lambda: _graph(
        meshes=[_MESH, dataclasses.replace(_PARTLY, axes=[[[2], [2]]])]
    ),
    "a whole mesh that is flattened": _mesh(flattened="f"),
    "a mesh whose name is a number": lambda: _graph(meshes=[_MESH, dataclasses.replace(_PARTLY, flattened=1)]),
    "a placement with a number of pieces that is text": _tensor(placements=[["P", "S", 0, "2"]]),
    "a placement of no pieces": _tensor(placements=[["P", "S", 0, 0]]),
    "a mesh that is none": lambda: _graph(inputs=[["M", 1]]),
    "a tensor of a mesh that is none": _tensor(mesh=1),
    "a tensor whose placement is a number": _tensor(placements=[0]),
    "a tensor whose placement is a tensor": _tensor(placements=[_PART]),
    "a dimension far outside": _tensor(placements=[["P", "S", 1 << 40, None]]),
    "a placement of a placement": _tensor(placements=[["P", "S", ["P", "R", None, None], None]]),
    "sizes without their tag": _tensor(shape=[4, 3]),
    "a symbolic size of no expression": _tensor(shape=["t", ["x", 1 << 20, "int"], 3]),
    "a negative size": _tensor(shape=["t", -4, 3]),
    "a stride too few": _tensor(stride=[1]),
    "a part that is a number": _tensor(part=1),
    "a part that is such a tensor itself": _tensor(part=dtensor_value(_TENSOR)),
    "a flag that is a number": _tensor(requires_grad=1),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_of_the_form_is_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        decode_graph(encode_graph(MALFORMED[name]()))
