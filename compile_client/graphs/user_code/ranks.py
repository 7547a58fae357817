"""Which rank a process is, and of which groups: what code that knows of ranks may compile into a graph.

A DTensor's operations are traced for the rank that traces them: its part of an uneven dimension, the half of a whole
tensor to which it adds. torch's key has the whole tensor's shape and the mesh, which are the same on every rank. A
graph in which nothing can know of ranks has no such part, so that ranks go on sharing one artifact.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from compile_client.graphs.tables import CannotCarryError
from compile_torch.checked_calls import knows_ranks
from compile_torch.dtensors import parts_held, without_hashes
from compile_torch.operators import name_of
from compile_wire.graph.spec import Value

_KNOWN_TO_A_WORKER = (type(None), bool, int, float, complex, str, type(Ellipsis), slice, range)


def ranks_of(gm: Any, inputs: Sequence[Any], user_code: str) -> list[Value]:
    """Return this rank, how many there are, and each group's name and ranks, where the graph may depend on that.

    Empty where it cannot: without `torch.distributed`, or where a graph's inputs, operators and constants are all such
    as know of no rank. `user_code` is the digest of the user's code that takes part; any may ask for its rank.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return []
    if not user_code and all(map(_knows_no_rank, _met(gm, inputs))):
        return []
    groups: dict[Any, str] = distributed.distributed_c10d._world.pg_names
    rows = sorted((str(name), distributed.get_process_group_ranks(group)) for group, name in groups.items())
    return [
        distributed.get_rank(),
        distributed.get_world_size(),
        *(["l", name, *(int(rank) for rank in ranks)] for name, ranks in rows),
    ]


def check_as_keyed(gm: Any, keyed: Sequence[Value]) -> None:
    """Raise `CannotCarryError` where dynamo's fakes of DTensors are not as those that torch computed its key from.

    torch makes these once more of the real ones, and where the parts begin inside of other memory, their sizes can be
    symbols then that dynamo has numbers for: a worker would arrive at another key.
    """
    fakes = [node.meta.get("example_value") for node in gm.graph.nodes if node.op == "placeholder"]
    said = [row[2:] for row in parts_held(fakes)]
    if said and said != [row[2:] for row in keyed if isinstance(row, list)][-len(said) :]:
        raise CannotCarryError("torch has other sizes of a DTensor's part in its key than dynamo has")


def why_ranks_compile_together() -> str:
    """Return with which settings ranks speak to each other while they compile; empty where each compiles by itself.

    A rank that is served an artifact then leaves those waiting that are not: such graphs are nobody else's business.
    """
    for config, name in _TOGETHER:
        holder: Any = sys.modules.get(f"torch.{config}")
        for part in name.split("."):
            holder = getattr(holder, part, None)
        if holder:
            return f"ranks speak to each other while they compile (torch.{config}.{name})"
    return ""


_TOGETHER = (
    ("_functorch.config", "_sync_decision_cross_ranks"),
    ("_functorch.config", "_sync_cache_decision_cross_ranks"),
    ("_inductor.config", "reorder_for_compute_comm_overlap"),
    ("_inductor.config", "distributed_max_autotune_gemm"),
    ("_inductor.config", "aten_distributed_optimizations.enable_overlap_scheduling"),
    ("_inductor.config", "aten_distributed_optimizations.spmd_check"),
    ("_inductor.config_comms", "runtime_estimations_align_across_all_distributed_ranks"),
)
"""What leads to an exchange in torch 2.13 to 2.15, by its sources; all of it is off as torch comes."""


def meshes_without_hashes(inputs: Sequence[Any]) -> contextlib.AbstractContextManager[None]:
    """Have the meshes among a graph's inputs forget their `hash()` while torch pickles them for its key."""
    return without_hashes(_meshes(inputs))


def _meshes(inputs: Sequence[Any]) -> list[Any]:
    """Return the meshes among a graph's inputs, and those that they are parts of."""
    import torch

    kind: Any = getattr(sys.modules.get("torch.distributed.device_mesh"), "DeviceMesh", ())
    found: dict[int, Any] = {}
    waiting: list[Any] = []
    if kind:
        # torch has an object in place of a mesh that it traces with, which holds the mesh.
        waiting = [getattr(value, "real_obj", value) for value in inputs if not isinstance(value, torch.Tensor)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, kind) and id(value) not in found:
            found[id(value)] = value
            waiting.extend(vars(value).values())
    return list(found.values())


def _met(gm: Any, inputs: Sequence[Any]) -> Iterator[Any]:
    """Yield what takes part in a graph: its inputs, tensors, modules, functions, and the constants among arguments."""
    import torch

    yield from _constants(inputs)
    yield from gm.parameters()
    yield from gm.buffers()
    for module in gm.modules():
        if not isinstance(module, torch.fx.GraphModule):
            yield module
            continue
        for node in module.graph.nodes:
            if node.op == "call_function":
                yield node.target
            yield from _constants((node.args, node.kwargs))


def _constants(value: Any) -> Iterator[Any]:
    import torch

    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _constants(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _constants(item)
    elif not isinstance(value, torch.fx.Node):
        yield value


def _knows_no_rank(value: Any) -> bool:
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    if isinstance(value, torch.Tensor):
        return type(value) in {torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, FakeTensor}
    if isinstance(value, torch.nn.Module):
        return type(value).__module__.startswith("torch.nn.modules.")
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        return True
    if isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
        return True
    if type(value) in _KNOWN_TO_A_WORKER:
        return True
    return callable(value) and name_of(value) is not None and not knows_ranks(value)
