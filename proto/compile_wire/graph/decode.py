"""Reading a GraphSpec: every value of it is checked for form, references and bounds before anything uses it.

Nothing here knows torch. What is accepted is data of the form that `compile_wire.graph.spec` describes; whether an
operator or a class may be used is decided where it is looked up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import (
    NODE_OPS,
    VERSION,
    DTensorSpec,
    GraphSpec,
    MeshSpec,
    ModuleSpec,
    NodeSpec,
    SymbolSpec,
    TensorSpec,
    Value,
    field_names,
)
from compile_wire.limits import (
    MAX_GRAPH_BYTES,
    MAX_LISTS,
    MAX_MODULES,
    MAX_NAME_TEXT,
    MAX_NODES,
    MAX_RANK,
    MAX_TABLE,
    MAX_VALUES,
)
from compile_wire.packing import unpack

_TAGS = frozenset(
    {"n", "l", "t", "z", "d", "s", "i", "c", "e", "dt", "ly", "mf", "dv", "f", "x", "T", "?", "S", "E", "M", "P", "D"}
)
_RANKED = {"ranks", "meshes"}
"""Fields that only a graph has that depends on the rank."""
_MAX_RANKS = 1 << 16
_INTEGER = re.compile(r"-?[0-9]{1,4096}")


def decode_graph(data: bytes, *, max_lists: int = MAX_LISTS) -> GraphSpec:
    """Return the spec in `data`; raise `MalformedError` where it is not of the form, or breaks a bound."""
    top = unpack(data, max_bytes=MAX_GRAPH_BYTES, what="graph", max_lists=max_lists)
    if not isinstance(top, dict) or top.get("v") != VERSION:
        raise MalformedError("not a graph of a version known here")
    names = {"v", *field_names(GraphSpec)} - (_RANKED - set(top))
    if set(top) != names:
        raise MalformedError(f"graph fields {sorted(set(top) ^ names)[:8]} are missing or unknown")
    check = _Check()
    expressions = check.rows(top["expressions"], MAX_TABLE, "expressions")
    sources = check.rows(top["sources"], MAX_TABLE, "sources")
    check.expression_rows, check.source_rows = len(expressions), len(sources)
    groups = check.ranks(top.get("ranks", []))
    meshes: list[MeshSpec] = []
    for row in check.rows(top.get("meshes", []), MAX_MODULES, "meshes"):
        meshes.append(check.mesh(row, groups, meshes))
    check.mesh_rows = len(meshes)
    for index, expression in enumerate(expressions):
        check.expression(expression, index)
    for index, source in enumerate(sources):
        check.source(source, index)
    module_rows = check.rows(top["modules"], MAX_MODULES, "modules")
    if not module_rows:
        raise MalformedError("a graph has at least one module")
    modules = [check.module(row, index, len(module_rows)) for index, row in enumerate(module_rows)]
    inputs = check.rows(top["inputs"], MAX_NODES, "inputs")
    for value in inputs:
        check.value(value, nodes=0)
    params = check.rows(top["params"], MAX_NODES, "params")
    for item in params:
        if not isinstance(item, list) or len(item) != 2:
            raise MalformedError("a parameter's row is [name, source]")
        check.text(item[0], "parameter name")
        check.row(item[1], check.source_rows, "parameter source")
    guards = check.rows(top["guards"], MAX_TABLE, "guards")
    for row in guards:
        check.row(row, check.expression_rows, "guard")
    return GraphSpec(
        torch=check.text(top["torch"], "torch version"),
        modules=modules,
        inputs=inputs,
        params=params,
        symbols=[check.symbol(row) for row in check.rows(top["symbols"], MAX_TABLE, "symbols")],
        guards=guards,
        sources=sources,
        expressions=expressions,
        dynamic_shapes=check.flag(top["dynamic_shapes"], "dynamic_shapes"),
        state=check.settings(top["state"], "state"),
        inductor=check.settings(top["inductor"], "inductor"),
        functorch=check.settings(top["functorch"], "functorch"),
        ranks=top.get("ranks", []),
        meshes=meshes,
    )


class _Check:
    """Checks a graph's values in one pass: form, references and counts."""

    def __init__(self) -> None:
        self.budget = MAX_VALUES
        self.expression_rows = 0
        self.source_rows = 0
        self.mesh_rows = 0

    def rows(self, value: Any, most: int, what: str) -> list[Any]:
        if not isinstance(value, list) or len(value) > most:
            raise MalformedError(f"{what} is a list of at most {most}")
        return value

    def text(self, value: Any, what: str) -> str:
        if not isinstance(value, str) or len(value) > MAX_NAME_TEXT:
            raise MalformedError(f"{what} is text of at most {MAX_NAME_TEXT} characters")
        return value

    def flag(self, value: Any, what: str) -> bool:
        if not isinstance(value, bool):
            raise MalformedError(f"{what} is true or false")
        return value

    def row(self, value: Any, rows: int, what: str, *, lowest: int = 0) -> int:
        if type(value) is not int or not lowest <= value < rows:
            raise MalformedError(f"{what} names row {value!r:.40} of {rows}")
        return value

    def settings(self, value: Any, what: str) -> dict[str, Value]:
        if not isinstance(value, dict) or len(value) > 4096:
            raise MalformedError(f"{what} is a map of settings")
        for name, item in value.items():
            self.text(name, f"{what}'s name")
            self.value(item, nodes=0)
        return value

    def expression(self, row: Any, index: int) -> None:
        self._spend(row, "expression")
        for argument in row[1:]:
            if isinstance(argument, int) and row[0] not in {"Integer", "Rational"}:
                self.row(argument, index, "expression's argument")
            elif not isinstance(argument, (int, float, str)):
                raise MalformedError("an expression's arguments are rows or literals")

    def source(self, row: Any, index: int) -> None:
        self._spend(row, "source")
        if len(row) != 2 or not isinstance(row[1], list):
            raise MalformedError("a source is [class, [field, value, ...]]")
        if len(row[1]) % 2:
            raise MalformedError("a source's fields come with their values")
        for name, value in zip(row[1][::2], row[1][1::2], strict=True):
            self.text(name, "source's field")
            self.value(value, nodes=0, sources=index)

    def _spend(self, row: Any, what: str, *, most: int = 4096) -> None:
        if not isinstance(row, list) or not row or len(row) > most:
            raise MalformedError(f"{what} is a short list")
        self.text(row[0], f"{what}'s head")
        self.budget -= len(row)
        if self.budget < 0:
            raise MalformedError(f"more than {MAX_VALUES} values")

    def symbol(self, row: Any) -> SymbolSpec:
        spec = SymbolSpec(**self._named(row, SymbolSpec))
        self.text(spec.name, "symbol")
        if not isinstance(spec.hint, (int, float)):
            raise MalformedError("a symbol's hint is a number")
        self.row(spec.source, self.source_rows, "symbol's source", lowest=-1)
        self.row(spec.replacement, self.expression_rows, "symbol's replacement", lowest=-1)
        for bound in (spec.lower, spec.upper):
            if bound is not None:
                self.row(bound, self.expression_rows, "symbol's bound")
        if spec.positive is not None:
            self.flag(spec.positive, "positive")
        return spec

    def module(self, row: Any, index: int, modules: int) -> ModuleSpec:
        named = self._named(row, ModuleSpec)
        rows = self.rows(named.pop("nodes"), MAX_NODES, "nodes")
        nodes = [self.node(item, position) for position, item in enumerate(rows)]
        spec = ModuleSpec(nodes=nodes, **named)
        for names, what in ((spec.attributes, "attributes"), (spec.children, "children")):
            for name in self.rows(names, MAX_MODULES, what):
                self.text(name, what)
        if len(self.rows(spec.bodies, MAX_MODULES, "bodies")) != len(spec.children):
            raise MalformedError("each child has a body")
        for body in spec.bodies:
            # A body comes after its parent: no module contains itself.
            if self.row(body, modules, "body") <= index:
                raise MalformedError("a module's body comes after it")
        self.value(spec.scalars, nodes=0)
        for item in self.rows(spec.tensors, MAX_NODES, "tensors"):
            if not isinstance(item, list) or len(item) != 3 or item[0] not in ("parameter", "buffer"):
                raise MalformedError("a tensor of a graph is [kind, name, tensor]")
            self.text(item[1], "tensor's name")
            if not isinstance(item[2], list) or item[2][:1] not in (["T"], ["D"]):
                raise MalformedError("a tensor of a graph is a tensor")
            self.value(item[2], nodes=0)
        self.flag(spec.training, "training")
        return spec

    def node(self, row: Any, position: int) -> NodeSpec:
        spec = NodeSpec(**self._named(row, NodeSpec))
        if spec.op not in NODE_OPS:
            raise MalformedError(f"no node has the op {spec.op!r:.40}")
        for text in (spec.name, spec.target, spec.type, spec.static):
            self.text(text, "node's name")
        for value in (spec.args, spec.kwargs, spec.meta):
            self.value(value, nodes=position)
        self.value(spec.value, nodes=0)
        self.row(spec.source, self.source_rows, "node's source", lowest=-1)
        return spec

    def _named(self, row: Any, kind: type[Any]) -> dict[str, Any]:
        names = field_names(kind)
        if not isinstance(row, list) or len(row) != len(names):
            raise MalformedError(f"a {kind.__name__} has {len(names)} fields")
        return dict(zip(names, row, strict=True))

    def value(self, value: Value, *, nodes: int, sources: int = 0) -> None:
        """Check a value that may refer to `nodes` earlier nodes and `sources` earlier sources.

        Recursive; the reader has bounded the depth.
        """
        self.budget -= 1
        if self.budget < 0:
            raise MalformedError(f"more than {MAX_VALUES} values")
        if value is None or isinstance(value, (bool, int, float, str)):
            return
        if not isinstance(value, list) or not value or not isinstance(value[0], str) or value[0] not in _TAGS:
            raise MalformedError(f"a value starts with a known tag, not {value!r:.60}")
        tag, items = value[0], value[1:]
        if tag in {"l", "t", "z", "d"}:
            if tag == "d" and len(items) % 2:
                raise MalformedError("a dict has a value for each key")
            for item in items:
                self.value(item, nodes=nodes, sources=sources)
            return
        if len(items) != _ARITY[tag]:
            raise MalformedError(f"a value tagged {tag} has {_ARITY[tag]} parts")
        if tag == "n":
            self.row(items[0], nodes, "node")
        elif tag == "x":
            self.row(items[0], self.expression_rows, "expression")
            if items[1] not in ("int", "float", "bool"):
                raise MalformedError("a symbolic number is int, float or bool")
        elif tag == "S":
            self.row(items[0], sources, "source")
        elif tag == "s":
            for item in items:
                self.value(item, nodes=nodes)
        elif tag == "T":
            self.tensor(items[0])
        elif tag == "M":
            self.row(items[0], self.mesh_rows, "mesh")
        elif tag == "P":
            self.text(items[0], "placement")
            if items[1] is not None:
                self.row(items[1], MAX_RANK, "dimension", lowest=-MAX_RANK)
            if items[2] is not None:
                self.row(items[2], _MAX_RANKS, "number of pieces", lowest=1)
        elif tag == "D":
            self.dtensor(items[0])
        elif tag == "i":
            if not isinstance(items[0], str) or not _INTEGER.fullmatch(items[0]):
                raise MalformedError("a long integer is written in decimal")
        elif tag == "c":
            if not all(isinstance(item, float) for item in items):
                raise MalformedError("a complex number has two floats")
        elif tag == "dv":
            self.text(items[0], "device")
            if items[1] is not None:
                self.row(items[1], 4096, "device index")
        else:
            for item in items:
                self.text(item, "name")

    def tensor(self, row: Any) -> None:
        tensor = TensorSpec(**self._named(row, TensorSpec))
        self.text(tensor.dtype, "dtype")
        self.text(tensor.device, "device")
        if tensor.device_index is not None:
            self.row(tensor.device_index, 4096, "device index")
        for sizes in (tensor.shape, tensor.stride):
            for size in self.rows(sizes, MAX_RANK, "sizes"):
                self.size(size)
        if len(tensor.shape) != len(tensor.stride):
            raise MalformedError("a tensor has as many strides as sizes")
        self.size(tensor.offset)
        self.size(tensor.storage_bytes)
        for flag in (tensor.requires_grad, tensor.leaf, tensor.parameter, tensor.view, tensor.inference):
            self.flag(flag, "tensor's flag")
        self.row(tensor.storage, MAX_NODES, "storage", lowest=-1)
        if tensor.item is not None:
            self.value(tensor.item, nodes=0)

    def dtensor(self, row: Any) -> None:
        tensor = DTensorSpec(**self._named(row, DTensorSpec))
        self.row(tensor.mesh, self.mesh_rows, "mesh")
        for placement in self.rows(tensor.placements, MAX_RANK, "placements"):
            if not isinstance(placement, list) or placement[:1] != ["P"]:
                raise MalformedError("a DTensor's placements are placements")
            self.value(placement, nodes=0)
        shape = self.rows(tensor.shape, MAX_RANK + 1, "sizes")
        if shape[:1] not in (["z"], ["t"]):
            raise MalformedError("a DTensor's sizes are a tuple")
        for sizes in (shape[1:], self.rows(tensor.stride, MAX_RANK, "strides")):
            for size in sizes:
                self.size(size)
        if len(shape) - 1 != len(tensor.stride):
            raise MalformedError("a tensor has as many strides as sizes")
        for flag in (tensor.requires_grad, tensor.leaf, tensor.parameter):
            self.flag(flag, "tensor's flag")
        if not isinstance(tensor.part, list) or tensor.part[:1] != ["T"]:
            raise MalformedError("a DTensor's part is a tensor")
        self.value(tensor.part, nodes=0)

    def ranks(self, value: Any) -> dict[str, list[int]]:
        """Check which rank the process is, and of which groups; return these by name."""
        groups: dict[str, list[int]] = {}
        if not self.rows(value, MAX_MODULES, "ranks"):
            return groups
        if len(value) < 2:
            raise MalformedError("ranks are [rank, how many there are, group, ...]")
        size = self.row(value[1], _MAX_RANKS + 1, "number of ranks", lowest=1)
        self.row(value[0], size, "rank")
        for group in value[2:]:
            self._spend(group, "group", most=_MAX_RANKS + 2)
            if len(group) < 3 or group[0] != "l" or self.text(group[1], "group") in groups:
                raise MalformedError("a group has a name of its own, and ranks")
            for rank in group[2:]:
                self.row(rank, size, "group's rank")
            groups[group[1]] = group[2:]
        return groups

    def mesh(self, row: Any, groups: Mapping[str, Any], earlier: Sequence[MeshSpec]) -> MeshSpec:
        mesh = MeshSpec(**self._named(row, MeshSpec))
        self.text(mesh.device, "device")
        self.text(mesh.flattened, "mesh's name")
        for rank in self.rows(mesh.ranks, _MAX_RANKS, "mesh's ranks"):
            self.row(rank, _MAX_RANKS, "rank")
        self.budget -= len(mesh.ranks)
        if self.budget < 0:
            raise MalformedError(f"more than {MAX_VALUES} values")
        whole = mesh
        if self.row(mesh.root, len(earlier), "mesh", lowest=-1) >= 0:
            whole = earlier[mesh.root]
        if (whole.root, bool(mesh.ranks)) != (-1, whole is mesh) or (whole is mesh and mesh.flattened):
            raise MalformedError("a mesh has ranks, or is a part of one that has")
        if len(set(whole.ranks)) != len(whole.ranks) or self._reach(mesh.axes) >= len(whole.ranks):
            raise MalformedError("a mesh has a rank in each place, and none twice")
        for names in (mesh.names, mesh.groups):
            for name in self.rows([] if names is None else names, MAX_RANK, "mesh's names"):
                self.text(name, "mesh's name")
        if len(mesh.groups) != len(mesh.axes) or not set(mesh.groups) <= set(groups):
            raise MalformedError("a mesh has a known group for each dimension")
        if mesh.names is not None and len(mesh.names) != len(mesh.axes):
            raise MalformedError("a mesh has a name for each dimension, or none")
        return mesh

    def _reach(self, axes: Any) -> int:
        """Return the last place in the row of ranks that a mesh's dimensions come to."""
        last, places = 0, 1
        for axis in self.rows(axes, MAX_RANK, "mesh"):
            pair = [self.rows(one, MAX_RANK, "mesh's axis") for one in self.rows(axis, 2, "mesh's axis")]
            if len(pair) != 2 or len(pair[0]) != len(pair[1]):
                raise MalformedError("a mesh's axis has as many strides as sizes")
            for size, stride in zip(*pair, strict=True):
                last += (self.row(size, _MAX_RANKS + 1, "mesh's size", lowest=2) - 1) * self.row(
                    stride, _MAX_RANKS + 1, "mesh's stride", lowest=1
                )
                places *= size
        return max(last, places - 1)

    def size(self, value: Value) -> None:
        if type(value) is int and 0 <= value < 2**63:
            return
        if isinstance(value, list) and len(value) == 3 and value[0] == "x" and value[2] == "int":
            self.row(value[1], self.expression_rows, "size")
            return
        raise MalformedError(f"a size is a number or an expression, not {value!r:.60}")


_ARITY = {
    "n": 1, "s": 3, "i": 1, "c": 2, "e": 0, "dt": 1, "ly": 1, "mf": 1, "dv": 2, "f": 1, "x": 2, "T": 1, "?": 1, "S": 1,
    "E": 2, "M": 1, "P": 3, "D": 1,
}  # fmt: skip
