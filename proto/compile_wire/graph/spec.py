"""GraphSpec: a dynamo graph as data.

What dynamo hands to a backend (an FX graph module, its inputs, the symbols of its shapes, and the settings that it is
compiled under) as plain values in msgpack: no pickle, no source text. The client captures one
(`compile_client.graphs.capture`), the worker builds the graph again (`compiler_daemon.worker.rebuild`), and both must
arrive at the same key of torch's. This module knows the form and its bounds, not torch: it accepts nothing that is not
of the form, but whether an operator or a class may be used is decided where it is looked up.

Values
  None, bool, int (64 bit), float and str stand for themselves; everything else is a list that starts with its tag:

  ["n", i]                  the result of node i of the same graph module
  ["l", *items]             list
  ["t", *items]             tuple; ["z", *items] torch.Size
  ["d", k, v, k, v, ...]    dict
  ["s", a, b, c]            slice
  ["i", text]               an integer of more than 64 bits, in decimal
  ["c", re, im]             complex
  ["e"]                     ellipsis
  ["dt", name], ["ly", name], ["mf", name]    dtype, layout, memory format, by torch's own name
  ["dv", type, index]       device; index None where it has none
  ["f", name]               a function, by the name under which both ends look it up
  ["x", row, kind]          a symbolic number: row of the table of expressions; kind "int", "float" or "bool"
  ["T", tensor]             a tensor's metadata, see TensorSpec
  ["M", row]                a mesh of devices: row of the table of meshes
  ["P", kind, of, every]    where a part of a DTensor lies: "S" with a dimension, and with into how many pieces this
                            was cut before, where that is not in the order of the mesh; "R"; or "sum" or another
                            reduction of partial results. None for what there is not
  ["D", tensor]             a DTensor's metadata, see DTensorSpec
  ["?", why]                there was a value, but it is not carried; allowed only where nothing depends on it
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from compile_wire.digest import Digest, digest_of
from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_GRAPH_BYTES
from compile_wire.packing import pack

VERSION = 1

NODE_OPS = ("placeholder", "get_attr", "call_function", "call_method", "call_module", "output")

Value = Any
"""A value of the form described above."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """A tensor without its data. Sizes are ints or ["x", row, "int"]."""

    dtype: str
    device: str
    device_index: int | None
    shape: list[Value]
    stride: list[Value]
    offset: Value
    requires_grad: bool
    leaf: bool
    parameter: bool
    view: bool
    inference: bool
    storage: int
    """Tensors with the same number share their memory; -1 for memory of its own."""
    storage_bytes: Value
    item: Value
    """The symbolic number that `.item()` gives, where dynamo made the tensor from a number; else None."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DTensorSpec:
    """A DTensor without its data: the whole tensor's sizes, where its parts lie, and the part that this rank has."""

    mesh: int
    """Row in the table of meshes."""
    placements: list[Value]
    """A ["P", ...] for each dimension of the mesh."""
    shape: Value
    """Sizes, tagged "z" or "t": torch's key has whether they are a `torch.Size`."""
    stride: list[Value]
    requires_grad: bool
    leaf: bool
    parameter: bool
    part: Value
    """["T", ...]"""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeshSpec:
    """A mesh of devices, as `torch.distributed.device_mesh.DeviceMesh` has it."""

    device: str
    ranks: list[int]
    """Those of the whole mesh in one row; none for a mesh that is a part of another, which has that one's."""
    axes: list[Value]
    """[sizes, strides] of each dimension in that row, as torch's layouts have them; neither for a size of 1."""
    names: list[str] | None
    """Of its dimensions, where they have any."""
    groups: list[str]
    """The group of each dimension, by its name in `GraphSpec.ranks`."""
    root: int
    """Row of the whole mesh that it is a part of; -1 where it is none."""
    flattened: str
    """The name by which the whole mesh knows it, where its dimensions were flattened; else empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeSpec:
    """One node of an FX graph."""

    op: str
    name: str
    target: str
    """Placeholder or attribute name, method name, or an operator by name."""
    args: Value
    kwargs: Value
    type: str
    """Placeholders: the annotation, one of `TYPES`; empty for none."""
    value: Value
    """`meta["example_value"]`; ["?", ...] where there was one that nothing depends on; None where there was none."""
    source: int
    """Placeholders: row in the table of sources; -1 for none."""
    static: str
    """Placeholders: dynamo's mark of a static input; empty for none."""
    meta: Value
    """Further metadata that the compile depends on, as ["d", ...]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleSpec:
    """A graph module. The names of its attributes stand in the order in which they were set: torch hashes it."""

    attributes: list[str]
    scalars: Value
    """Attributes that are plain values, as ["d", name, value, ...]."""
    tensors: list[Value]
    """[kind, name, ["T", ...] or ["D", ...]] of the tensors that the graph holds: of kind "parameter" or "buffer"."""
    training: bool
    nodes: list[NodeSpec]
    children: list[str]
    """Names of nested graph modules, in order."""
    bodies: list[int]
    """For each child, its row in `GraphSpec.modules`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SymbolSpec:
    """A symbol of the shape environment that stands for an input's size or a number."""

    name: str
    hint: Value
    source: int
    lower: Value
    """Row in the table of expressions; None for minus infinity."""
    upper: Value
    positive: bool | None
    replacement: int
    """Row in the table of expressions that the symbol is known to equal; -1 for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphSpec:
    """A graph, its inputs, its symbols, and the settings it is compiled under."""

    torch: str
    """Version of the torch that captured it."""
    modules: list[ModuleSpec]
    """Row 0 is the graph itself."""
    inputs: list[Value]
    """What the backend was called with."""
    params: list[Value]
    """[placeholder's name, source row] in dynamo's order: `_param_name_to_source`."""
    symbols: list[SymbolSpec]
    guards: list[int]
    """Rows of expressions that the shape environment had guarded on already."""
    sources: list[Value]
    """[class, [field, value, ...]]; a value ["S", row] is an earlier source, ["E", enum, name] a member of an enum."""
    expressions: list[Value]
    """[head, argument, ...]; arguments are rows, but for the heads that carry a literal."""
    dynamic_shapes: bool
    """`AOTConfig.dynamic_shapes` as the client had it."""
    state: dict[str, Value]
    """torch's global settings by name."""
    inductor: dict[str, Value]
    functorch: dict[str, Value]
    ranks: list[Value] = field(default_factory=list)
    """[rank, how many there are, ["l", group, *its ranks], ...] of a graph that depends on it; else empty."""
    meshes: list[MeshSpec] = field(default_factory=list)


TYPES = (
    "Tensor", "Parameter", "SymInt", "SymFloat", "SymBool", "int", "float", "bool", "FakeTensor", "DTensor",
    "DeviceMesh",
)  # fmt: skip
"""Annotations of placeholders that are carried by name."""


def encode_graph(spec: GraphSpec) -> bytes:
    """Return the spec's bytes; raise `MalformedError` where it breaks a bound."""
    data = pack(
        {
            "v": VERSION,
            "torch": spec.torch,
            "modules": [_module_row(module) for module in spec.modules],
            "inputs": spec.inputs,
            "params": spec.params,
            "symbols": [_row(symbol) for symbol in spec.symbols],
            "guards": spec.guards,
            "sources": spec.sources,
            "expressions": spec.expressions,
            "dynamic_shapes": spec.dynamic_shapes,
            "state": spec.state,
            "inductor": spec.inductor,
            "functorch": spec.functorch,
            **({"ranks": spec.ranks} if spec.ranks else {}),
            **({"meshes": [_row(mesh) for mesh in spec.meshes]} if spec.meshes else {}),
        }
    )
    if len(data) > MAX_GRAPH_BYTES:
        raise MalformedError(f"the graph has {len(data)} bytes, more than {MAX_GRAPH_BYTES}")
    return data


def graph_digest(data: bytes) -> Digest:
    """Return the name of an encoded graph."""
    return digest_of(data)


def tensor_value(tensor: TensorSpec) -> Value:
    """Return a tensor's metadata as a value."""
    return ["T", _row(tensor)]


def tensor_from(value: Value) -> TensorSpec:
    """Return the metadata in a checked ["T", ...] value."""
    return TensorSpec(**dict(zip(field_names(TensorSpec), value[1], strict=True)))


def dtensor_value(tensor: DTensorSpec) -> Value:
    """Return a DTensor's metadata as a value."""
    return ["D", _row(tensor)]


def dtensor_from(value: Value) -> DTensorSpec:
    """Return the metadata in a checked ["D", ...] value."""
    return DTensorSpec(**dict(zip(field_names(DTensorSpec), value[1], strict=True)))


def field_names(kind: type[Any]) -> list[str]:
    """Return the fields of one of the specs, in the order in which their row has them."""
    return [one.name for one in fields(kind)]


def _row(item: Any) -> list[Value]:
    return [getattr(item, name) for name in field_names(type(item))]


def _module_row(module: ModuleSpec) -> list[Value]:
    row = _row(module)
    row[field_names(ModuleSpec).index("nodes")] = [_row(node) for node in module.nodes]
    return row
