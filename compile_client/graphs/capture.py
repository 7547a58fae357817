"""Capture: a dynamo graph, as the backend received it, becomes a `GraphSpec`.

Guarantees: nothing of the graph is changed and none of its code is generated (torch hashes the module's attributes in
the order in which they appeared, and generating code adds some); no tensor's data is read. What cannot be carried is
refused with a reason that names the node.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from compile_client.graphs.source_lines import origin_of
from compile_client.graphs.tables import CannotCarryError, Tables
from compile_client.graphs.user_code.shipped_operators import why_not_as_shipped
from compile_client.graphs.values import Values
from compile_torch.checked_calls import check_call
from compile_torch.key.state import read_state
from compile_torch.library_operators import library_of
from compile_torch.operators import check_method, name_of
from compile_wire.graph.spec import (
    TYPES,
    GraphSpec,
    ModuleSpec,
    NodeSpec,
    SymbolSpec,
    Value,
    encode_graph,
)

__all__ = ["CannotCarryError", "capture"]

_TYPE_NAMES = {
    torch.Tensor: "Tensor",
    torch.nn.Parameter: "Parameter",
    torch.SymInt: "SymInt",
    torch.SymFloat: "SymFloat",
    torch.SymBool: "SymBool",
    int: "int",
    float: "float",
    bool: "bool",
}

_DISTRIBUTED = {
    "torch.distributed.tensor.DTensor": "DTensor",
    "torch.distributed.device_mesh.DeviceMesh": "DeviceMesh",
}
"""Types by the names that they give themselves: they are loaded only where they are used."""

_META_DROPPED = frozenset(
    {
        # For people, logs and provenance only.
        "creation_timestamp", "from_node", "nn_module_stack", "original_aten", "seq_nr", "source_fn_stack",
        "stack_trace", "torch_fn", "fwd_source_fn_stack", "fwd_nn_module_stack",
        # Carried in other ways.
        "example_value", "grapharg", "tensor_dict", "val", "tensor_meta", "unbacked_bindings",
        # Guards' business, done before the backend is called.
        "steal_arg", "arg_kind",
    }
)  # fmt: skip

_MODULE_PLAIN = frozenset(vars(torch.nn.Module())) | {
    # Made by the GraphModule itself, from its graph.
    "_graph", "_code", "_lineno_map", "_prologue_start", "_tracer_cls", "_tracer_extras", "meta", "_replace_hooks",
    "_create_node_hooks", "_erase_node_hooks", "_deepcopy_hooks",
    # Set by dynamo, and cleared by torch before it hashes; see design of the worker's rebuild.
    "shape_env", "compile_subgraph_reason", "_param_name_to_source", "_source_to_user_stacks", "_backend_id",
}  # fmt: skip


def capture(
    gm: torch.fx.GraphModule, example_inputs: Any, *, dynamic_shapes: bool, ranks: Sequence[Value] = ()
) -> bytes:
    """Return the encoded spec of the graph `gm` with the inputs that the backend was called with.

    `ranks` says which rank the process is, where the graph may depend on that.

    Raises `CannotCarryError` with a reason for people; `MalformedError` where a bound is broken.
    """
    if gm.meta.get("cudagraph_annotation") is not None:
        raise CannotCarryError("the program says of this graph whether it becomes a CUDA graph (override_cudagraphs)")
    tables = Tables(_shape_env())
    modules: list[ModuleSpec | None] = []
    _module(gm, tables, modules, name="")
    fakes = [node.meta.get("example_value") for node in gm.graph.nodes if node.op == "placeholder"]
    if len(fakes) != len(example_inputs):
        raise CannotCarryError(f"the graph has {len(fakes)} placeholders but {len(example_inputs)} inputs")
    values = Values(tables, {})
    inputs = [
        values.encode_input(fake, given, f"input {index}")
        for index, (fake, given) in enumerate(zip(fakes, example_inputs, strict=True))
    ]
    params = getattr(gm, "_param_name_to_source", None) or {}
    from compile_client.graphs.settings import functorch_settings, inductor_settings

    spec = GraphSpec(
        torch=str(torch.__version__),
        modules=[module for module in modules if module is not None],
        inputs=inputs,
        params=[[name, tables.source(source)] for name, source in params.items()],
        symbols=_symbols(tables),
        guards=tables.guards(),
        sources=tables.sources,
        expressions=tables.expressions,
        dynamic_shapes=dynamic_shapes,
        state=_state(),
        inductor=inductor_settings(),
        functorch=functorch_settings(),
        ranks=[*ranks],
        meshes=tables.meshes,
    )
    return encode_graph(spec)


def _shape_env() -> Any:
    context = torch._guards.TracingContext.try_get()
    return context.fake_mode.shape_env if context is not None and context.fake_mode is not None else None


def _state() -> dict[str, Value]:
    if torch.overrides._get_current_function_mode_stack():
        raise CannotCarryError("a torch function mode is active (torch.set_default_device, say)")
    return read_state()


def _module(gm: torch.fx.GraphModule, tables: Tables, modules: list[ModuleSpec | None], *, name: str) -> int:
    """Append the spec of `gm`, then those of its bodies; return its row."""
    row = len(modules)
    modules.append(None)
    attributes = list(gm.__dict__)
    scalars: list[Value] = ["d"]
    values = Values(tables, {})
    for attribute in attributes:
        if attribute not in _MODULE_PLAIN:
            scalars += [attribute, values.encode(gm.__dict__[attribute], f"attribute {attribute} of the graph {name}")]
    for key in gm.meta:
        if key.startswith("_checkpoint"):
            raise CannotCarryError(f"the graph {name} has {key}: a Python function of selective checkpointing")
    tensors = _tensors(gm, values, name)
    nodes = _nodes(gm, tables, name)
    children, bodies = [], []
    for child_name, child in gm._modules.items():
        if not isinstance(child, torch.fx.GraphModule):
            raise CannotCarryError(f"the graph {name} holds a {type(child).__name__} as {child_name}")
        children.append(child_name)
        bodies.append(_module(child, tables, modules, name=child_name))
    modules[row] = ModuleSpec(
        attributes=attributes,
        scalars=scalars,
        tensors=tensors,
        training=gm.training,
        nodes=nodes,
        children=children,
        bodies=bodies,
    )
    return row


def _tensors(gm: torch.fx.GraphModule, values: Values, name: str) -> list[Value]:
    """Return the metadata of the graph's own parameters and buffers (an optimizer's, say), in order."""
    rows: list[Value] = []
    for kind, held in (("parameter", gm._parameters), ("buffer", gm._buffers)):
        for tensor_name, tensor in held.items():
            if tensor is None:
                raise CannotCarryError(f"the graph {name} has an empty {kind} {tensor_name}")
            where = f"the graph's {kind} {tensor_name}"
            rows.append([kind, tensor_name, values.encode_held(_fake(tensor, where), tensor, where)])
    return rows


def _fake(tensor: torch.Tensor, where: str) -> torch.Tensor:
    """Return the fake that dynamo has made of a real tensor already: no data is read, no symbol is made."""
    context = torch._guards.TracingContext.try_get()
    if context is None or context.fake_mode is None:
        raise CannotCarryError(f"{where} has no fake: the graph is compiled outside of dynamo")
    fake: torch.Tensor = context.fake_mode.from_tensor(tensor, static_shapes=True)
    return fake


def _nodes(gm: torch.fx.GraphModule, tables: Tables, name: str) -> list[NodeSpec]:
    if type(gm.graph._codegen) is not torch.fx.graph.CodeGen:
        raise CannotCarryError(f"the graph {name} has a code generator of its own")
    index = {node: position for position, node in enumerate(gm.graph.nodes)}
    values = Values(tables, index)
    specs = []
    for node in index:
        try:
            specs.append(_node(node, gm, tables, values))
        except CannotCarryError as error:
            origin = origin_of(node)
            raise CannotCarryError(f"{error}, at {origin}" if origin else str(error)) from error
    return specs


def _node(node: torch.fx.Node, gm: torch.fx.GraphModule, tables: Tables, values: Values) -> NodeSpec:
    where = f"node {node.name} ({node.op} {_target_text(node)})"
    source, static = -1, ""
    value: Value = None
    if node.op == "placeholder":
        if (dynamo_source := getattr(node, "_dynamo_source", None)) is not None:
            source = tables.source(dynamo_source)
        static = (node.meta.get("tensor_dict") or {}).get("_dynamo_static_input_type", "")
        if "example_value" in node.meta:
            value = ["?", type(node.meta["example_value"]).__name__]
    elif "example_value" in node.meta:
        value = ["?", ""]
    if node.op == "get_attr" and not any(node.target in held for held in (gm._modules, gm._parameters, gm._buffers)):
        raise CannotCarryError(f"{where} is an attribute of no known kind")
    if node.op == "call_module":
        raise CannotCarryError(f"{where} calls a module")
    return NodeSpec(
        op=node.op,
        name=node.name,
        target=_target(node, where),
        args=values.encode(node.args, where),
        kwargs=values.encode(dict(node.kwargs), where),
        type=_type(node, where),
        value=value,
        source=source,
        static=static,
        meta=_meta(node, where, values),
    )


def _target(node: torch.fx.Node, where: str) -> str:
    target = node.target
    if node.op == "call_function":
        if (name := name_of(target)) is None:
            raise CannotCarryError(f"{where} is not an operator that may be named")
        if (library := library_of(target)) is not None and (why := why_not_as_shipped(library)):
            raise CannotCarryError(f"{where} is the program's own operator: {why}")
        check_call(target, node.args, node.kwargs, where)
        return name
    if not isinstance(target, str):
        raise CannotCarryError(f"{where} has a target of type {type(target).__name__}")
    if node.op == "call_method":
        check_method(target)
    return target


def _target_text(node: torch.fx.Node) -> str:
    if isinstance(node.target, str):
        return node.target
    if isinstance(node.target, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        return f"torch.ops.{node.target}"
    module = getattr(node.target, "__module__", None)
    return f"{module}.{getattr(node.target, '__qualname__', node.target)}"


def _type(node: torch.fx.Node, where: str) -> str:
    if node.type is None:
        return ""
    said = f"{getattr(node.type, '__module__', '')}.{getattr(node.type, '__qualname__', '')}"
    name = _TYPE_NAMES.get(node.type) or _DISTRIBUTED.get(said)
    if name is None and node.type is torch._subclasses.fake_tensor.FakeTensor:
        name = "FakeTensor"
    if name is None or name not in TYPES:
        raise CannotCarryError(f"{where} is annotated with {node.type}")
    return name


def _meta(node: torch.fx.Node, where: str, values: Values) -> Value:
    encoded: list[Value] = ["d"]
    for key in sorted(set(node.meta) - _META_DROPPED):
        if node.meta[key] in (None, {}, (), []):
            continue
        encoded += [key, values.encode(node.meta[key], f"{where}, metadata {key}")]
    return encoded


def _symbols(tables: Tables) -> list[SymbolSpec]:
    """Return the symbols that the tables came to name, in the order in which the shape environment made them."""
    env = tables.shape_env
    if env is None:
        return []
    specs = []
    known = tables.backed()
    for symbol, hint in known.items():
        if not isinstance(hint, (int, float)):
            raise CannotCarryError(f"symbol {symbol} stands for a {type(hint).__name__}")
        sources = env.var_to_sources.get(symbol) or [None]
        bounds = env.var_to_range[symbol]
        replacement = env.replacements.get(symbol)
        specs.append(
            SymbolSpec(
                name=str(symbol),
                hint=hint,
                source=tables.source(sources[0]) if sources[0] is not None else -1,
                lower=tables.expression(bounds.lower),
                upper=tables.expression(bounds.upper),
                positive=symbol.is_positive,
                replacement=-1 if replacement is None else tables.expression(replacement),
            )
        )
    return specs
