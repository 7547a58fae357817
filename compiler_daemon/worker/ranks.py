"""A worker takes the part of one rank, while it compiles a graph that depends on it.

torch's own backend "fake" has groups of the trainer's names and sizes, and sends nothing: what is compiled speaks of
groups by their names, and finds the trainer's where it is loaded.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from compile_torch.collectives import GROUP, REDUCTIONS
from compile_wire.errors import MalformedError
from compile_wire.graph.spec import DTensorSpec, GraphSpec

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_FAKE = "torch.testing._internal.distributed.fake_pg"
_DEVICES = frozenset({"cpu"})
"""Others were never run."""


def import_distributed() -> bool:
    """Load torch's DTensors; return whether they were not there before."""
    new = _FAKE not in sys.modules
    if not torch.distributed.is_available():
        raise MalformedError("this torch was built without torch.distributed")
    for name in ("torch.distributed.tensor", _FAKE):
        importlib.import_module(name)
    return new


@contextlib.contextmanager
def as_rank(spec: GraphSpec) -> Iterator[list[Any]]:
    """Be the rank of the spec while the block lasts; yield its meshes.

    Raises `MalformedError` where its groups are of a kind that is not made here.
    """
    if not spec.ranks:
        yield []
        return
    rank, size, *groups = spec.ranks
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    named = {name: ranks for _, name, *ranks in groups}
    if not named or not all(GROUP.fullmatch(name) for name in named):
        raise MalformedError("the graph speaks of a group that torch has not numbered")
    first, *others = sorted(named, key=int)
    if named[first] != list(range(size)) or not all(rank in named[name] for name in named):
        raise MalformedError("the graph's first group is not that of all ranks, or one is not the rank's own")
    if any(one >= size for mesh in spec.meshes for one in mesh.ranks):
        raise MalformedError("a mesh has more ranks than there are")
    world: Any = dist.distributed_c10d._world
    try:
        try:
            world.group_count = int(first)
            dist.init_process_group("fake", rank=rank, world_size=size, store=FakeStore())
            for name in others:
                world.group_count = int(name)
                dist.new_group(named[name])
            meshes = _meshes(spec, rank)
        except (RuntimeError, ValueError, AssertionError, TypeError, AttributeError) as error:
            raise MalformedError(f"the part of a rank cannot be taken: {str(error)[:200]}") from error
        if sorted(map(str, world.pg_names.values())) != sorted(named):
            raise MalformedError("this torch calls the groups otherwise")
        yield meshes
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        world.group_count = 0


def _meshes(spec: GraphSpec, rank: int) -> list[Any]:
    """Return the meshes of the spec, parts of whole ones as parts of these."""
    from torch.distributed._mesh_layout import _FlatLayout, _MeshLayout
    from torch.distributed.device_mesh import DeviceMesh

    meshes: list[Any] = []
    for mesh in spec.meshes:
        names = (*(mesh.names or ()), *filter(None, [mesh.flattened]))
        if mesh.device not in _DEVICES or not all(map(_NAME.fullmatch, names)):
            raise MalformedError(f"there is no mesh of {mesh.device!r:.40} here, or its dimensions are oddly called")
        root = None if mesh.root < 0 else meshes[mesh.root]
        made: Any = DeviceMesh(
            mesh.device,
            _layout=_MeshLayout([_FlatLayout(tuple(sizes), tuple(strides)) for sizes, strides in mesh.axes]),
            _rank_map=torch.tensor(mesh.ranks, dtype=torch.int) if root is None else root._rank_map,
            mesh_dim_names=None if mesh.names is None else tuple(mesh.names),
            _root_mesh=root,
            _init_backend=False,
            _rank=rank,
        )
        made._dim_group_names = list(mesh.groups)
        whole = made if root is None else root
        c10d: Any = torch.distributed.distributed_c10d
        whole._pg_registry.update({name: c10d._resolve_process_group(name) for name in mesh.groups})
        if mesh.flattened:
            whole._flatten_mapping[mesh.flattened] = made
        meshes.append(made)
    return meshes


def placement(kind: str, of: int | None, every: int | None) -> Any:
    """Return where a part of a DTensor lies."""
    from torch.distributed.tensor import Partial, Replicate, Shard
    from torch.distributed.tensor.placement_types import _StridedShard

    if kind == "S" and of is not None:
        return Shard(of) if every is None else _StridedShard(of, split_factor=every)
    if kind == "R" and of is every is None:
        return Replicate()
    if kind in REDUCTIONS and of is every is None:
        return Partial(kind)
    raise MalformedError(f"no part of a tensor lies as {kind!r:.40} says")


def dtensor(
    spec: DTensorSpec, part: Any, mesh: Any, placements: Sequence[Any], sizes: Sequence[Any], strides: Sequence[Any]
) -> Any:
    """Return a DTensor of a fake part, of those sizes and strides."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._dtensor_spec import DTensorSpec as Spec
    from torch.distributed.tensor._dtensor_spec import TensorMeta

    if len(placements) != mesh.ndim:
        raise MalformedError("a DTensor has a placement for each dimension of its mesh")
    shape: Any = torch.Size(sizes) if spec.shape[0] == "z" else tuple(sizes)
    meta = TensorMeta(shape, tuple(strides), part.dtype)
    made: Any = DTensor(part, Spec(mesh, tuple(placements), tensor_meta=meta), requires_grad=spec.requires_grad)
    if spec.requires_grad and not spec.leaf:
        with torch.enable_grad():
            made = torch.ops.aten.alias.default(made)
    if spec.parameter:
        made._is_param = True
    return made


def group_names(spec: GraphSpec) -> frozenset[str]:
    """Return the names of groups, which stand as text in what torch has traced."""
    return frozenset(str(group[1]) for group in spec.ranks[2:])
