"""Rebuild: a `GraphSpec` becomes an FX graph with fake inputs, such that torch computes the key that the trainer had.

The spec comes from outside. It is data of a checked form; what it names is looked up in closed tables (operators,
sources, heads of expressions, settings), and nothing of it is ever evaluated as text.

What equality of keys takes, beyond the nodes: a lazy graph module; the module's attributes in dynamo's order; the
placeholders' types, sources and static marks; fake inputs whose symbols carry the trainer's names; and no generated
code before torch itself asks for it. (Run on torch 2.13.)
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import keyword
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._library.fake_class_registry import maybe_to_fake_obj
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from compile_torch.checked_calls import check_call, named_call
from compile_torch.dtensors import mesh_of
from compile_torch.operators import check_method, resolve
from compile_wire.errors import MalformedError
from compile_wire.graph.spec import GraphSpec, ModuleSpec, NodeSpec
from compiler_daemon.worker.pairs import check_pairs
from compiler_daemon.worker.shapes import Shapes
from compiler_daemon.worker.texts import check_arguments, check_metadata, check_text
from compiler_daemon.worker.values import Values

_TYPES: dict[str, Any] = {
    "Tensor": torch.Tensor,
    "Parameter": torch.nn.Parameter,
    "SymInt": torch.SymInt,
    "SymFloat": torch.SymFloat,
    "SymBool": torch.SymBool,
    "int": int,
    "float": float,
    "bool": bool,
    "FakeTensor": FakeTensor,
}


_METADATA = frozenset({"ac_graph_id", "custom", "partitioner_tag"})
"""Metadata of nodes that a compile depends on. All else is for people, and torch writes some of it into sources."""

_ATTRIBUTES = frozenset({"__name__", "torchdynamo_force_dynamic"})
"""Plain attributes that dynamo gives to graph modules."""

_TAKEN = frozenset(dir(torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())))
"""Names that a graph module needs for itself."""


class Present:
    """Stands for an example value that is not carried. Whoever looks into it gets an error, never a wrong value."""

    def __repr__(self) -> str:
        return "Present()"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilt:
    """A graph as a backend would have received it."""

    gm: torch.fx.GraphModule
    inputs: list[Any]
    fake_mode: FakeTensorMode


def rebuild(spec: GraphSpec, meshes: Sequence[Any] = ()) -> Rebuilt:
    """Return the graph of `spec`; raise `MalformedError` where it names what may not be named or does not fit.

    `meshes` are those of the spec; see `compiler_daemon.worker.ranks`.
    """
    try:
        return _rebuilt(spec, meshes)
    except MalformedError:
        raise
    except Exception as error:  # torch's, sympy's or fx's own way to say that something does not fit
        raise MalformedError(f"the graph cannot be rebuilt: {type(error).__name__}: {str(error)[:200]}") from error


def _rebuilt(spec: GraphSpec, meshes: Sequence[Any]) -> Rebuilt:
    for value in spec.inputs:
        check_text(value)
    shapes = Shapes(spec)
    # Without fallbacks: torch would run an operator that it knows no shapes of, on real memory, to see what comes out.
    fake_mode = FakeTensorMode(shape_env=shapes.shape_env, allow_non_fake_inputs=True, allow_fallback_kernels=False)
    values = Values(shapes, fake_mode, meshes)
    inputs = [values.decode(value, ()) for value in spec.inputs]
    shapes.guard(spec)
    gm = _module(spec, 0, shapes, values, inputs)
    params = {name: shapes.source(row) for name, row in spec.params}
    _set_like_dynamo(gm, spec.modules[0], params)
    gm.meta["dynamo_compile_id"] = torch._guards.CompileId(frame_id=0, frame_compile_id=0)
    return Rebuilt(gm=gm, inputs=inputs, fake_mode=fake_mode)


def _module(
    spec: GraphSpec, row: int, shapes: Shapes, values: Values, inputs: list[Any] | None
) -> torch.fx.GraphModule:
    module = spec.modules[row]
    children = {
        name: _module(spec, body, shapes, values, None)
        for name, body in zip(module.children, module.bodies, strict=True)
    }
    graph = torch.fx.Graph()
    nodes: list[torch.fx.Node] = []
    check_pairs(module.nodes)
    placeholders = 0
    held = {*children, *(name for _, name, _ in module.tensors)}
    for node in module.nodes:
        made = _node(graph, node, nodes, shapes, values, held)
        if node.op == "placeholder" and inputs is not None:
            if placeholders >= len(inputs):
                raise MalformedError("the graph has more placeholders than inputs")
            given = inputs[placeholders]
            made.meta["example_value"] = given if mesh_of(given) is None else maybe_to_fake_obj(values.fake_mode, given)
            placeholders += 1
        nodes.append(made)
    if inputs is not None and placeholders != len(inputs):
        raise MalformedError("the graph has fewer placeholders than inputs")
    if [node.op for node in module.nodes].count("output") != 1 or module.nodes[-1].op != "output":
        raise MalformedError("a graph ends with its one output")
    return _graph_module(graph, module, children, values, lazy=row == 0)


def _graph_module(
    graph: torch.fx.Graph, module: ModuleSpec, children: dict[str, Any], values: Values, *, lazy: bool
) -> torch.fx.GraphModule:
    root = torch.nn.Module()
    for name in [*children, *(name for _, name, _ in module.tensors)]:
        if not _is_name(name) or name in _TAKEN:
            raise MalformedError(f"a part of a graph cannot be called {name!r:.60}")
    for name, child in children.items():
        root.add_module(name, child)
    for kind, name, value in module.tensors:
        # Not `register_parameter`: it would ask for a real parameter, and these are fakes that say they are one.
        (root._parameters if kind == "parameter" else root._buffers)[name] = values.decode(value, ())
    with torch.fx._lazy_graph_module._use_lazy_graph_module(lazy):
        gm = torch.fx._lazy_graph_module._make_graph_module(root, graph)
    gm.training = module.training
    check_text(module.scalars)
    for name, value in values.decode(module.scalars, ()).items():
        if name not in _ATTRIBUTES or not isinstance(value, (bool, str)):
            raise MalformedError(f"a graph module has no attribute {name!r:.60}")
        gm.__dict__[name] = value
    if not lazy:
        _order(gm, module.attributes)
    return gm


def _set_like_dynamo(gm: torch.fx.GraphModule, module: ModuleSpec, params: dict[str, Any]) -> None:
    dynamo = {
        "shape_env": None,
        "compile_subgraph_reason": None,
        "_param_name_to_source": params,
        "_source_to_user_stacks": {},
        "_backend_id": None,
    }
    for name in module.attributes:
        if name in dynamo:
            gm.__dict__[name] = dynamo[name]
    gm.__dict__.setdefault("_param_name_to_source", params)
    _order(gm, module.attributes)


def _order(gm: torch.fx.GraphModule, attributes: list[str]) -> None:
    """Put the attributes into the order that they had: torch's key hashes the dictionary as it stands."""
    if "shape_env" in attributes and "shape_env" not in gm.__dict__:
        gm.__dict__["shape_env"] = None
    have = dict(gm.__dict__)
    gm.__dict__.clear()
    for name in attributes:
        if name in have:
            gm.__dict__[name] = have.pop(name)
    gm.__dict__.update(have)


def _node(
    graph: torch.fx.Graph,
    spec: NodeSpec,
    nodes: list[torch.fx.Node],
    shapes: Shapes,
    values: Values,
    held: Collection[str],
) -> torch.fx.Node:
    if spec.op == "call_function":
        target = named_call(spec.target) or resolve(spec.target)
    else:
        target = spec.target
        _check_target(spec, held)
    _check_text(spec)
    args, kwargs = values.decode(spec.args, nodes), values.decode(spec.kwargs, nodes)
    if not isinstance(args, tuple) or not isinstance(kwargs, dict):
        raise MalformedError(f"node {spec.name}: arguments are a tuple and a dict")
    if not all(isinstance(name, str) and _is_name(name) for name in kwargs):
        raise MalformedError(f"node {spec.name} has a keyword that is no name: {list(kwargs)!r:.80}")
    if spec.op == "placeholder" and (args or kwargs):
        raise MalformedError(f"node {spec.name} is a placeholder with arguments")
    check_call(target, args, kwargs, f"node {spec.name}")
    if spec.op == "call_method" and not (args and isinstance(args[0], torch.fx.Node)):
        raise MalformedError(f"node {spec.name} calls a method of something that is no node")
    if spec.type and _type(spec.type) is None:
        raise MalformedError(f"node {spec.name} is annotated with {spec.type!r:.60}")
    node = graph.create_node(spec.op, target, args, kwargs, name=spec.name, type_expr=_type(spec.type))
    if node.name != spec.name or not _is_name(spec.name):
        raise MalformedError(f"a node cannot be called {spec.name!r:.60}")
    if spec.value is not None:
        node.meta["example_value"] = Present()
    if spec.source >= 0:
        node._dynamo_source = shapes.source(spec.source)
    if spec.op == "placeholder":
        node.meta["tensor_dict"] = {"_dynamo_static_input_type": spec.static} if spec.static else {}
    meta = values.decode(spec.meta, nodes)
    if not set(meta) <= _METADATA:
        raise MalformedError(f"node {spec.name} has metadata that is not carried: {sorted(map(str, meta))!r:.80}")
    check_metadata(spec.name, meta)
    node.meta.update(meta)
    return node


def _type(name: str) -> Any:
    if name == "DTensor":
        from torch.distributed.tensor import DTensor

        return DTensor
    if name == "DeviceMesh":
        from torch.distributed.device_mesh import DeviceMesh

        return DeviceMesh
    return _TYPES.get(name)


def _check_target(spec: NodeSpec, held: Collection[str]) -> None:
    if spec.op == "call_method":
        check_method(spec.target)
    elif spec.op == "get_attr" and spec.target not in held:
        raise MalformedError(f"node {spec.name} reads {spec.target!r:.60}, which its graph does not hold")
    elif spec.op == "call_module":
        raise MalformedError(f"node {spec.name} calls a module")
    elif not _is_name(spec.target):
        raise MalformedError(f"node {spec.name} has no name for its target: {spec.target!r:.60}")


def _check_text(spec: NodeSpec) -> None:
    check_arguments(spec.target if spec.op == "call_function" else "", spec.args, spec.kwargs)
    check_text([spec.meta, spec.static])


def _is_name(name: str) -> bool:
    """Return whether it can stand for a variable in the source that fx makes of a graph, and for nothing else."""
    return name.isascii() and name.isidentifier() and not keyword.iskeyword(name)
