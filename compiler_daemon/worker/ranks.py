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

from compile_torch.dtensors import REDUCTIONS
from compile_torch.patches import Patches
from compile_wire.errors import MalformedError
from compile_wire.graph.spec import DTensorSpec, GraphSpec, MeshSpec

_GROUP = re.compile(r"0|[1-9][0-9]{0,5}")
"""torch numbers its groups; those that a program has named are not made here."""
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
    if not named or not all(_GROUP.fullmatch(name) for name in named):
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
            meshes = [_mesh(mesh, rank) for mesh in spec.meshes]
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            raise MalformedError(f"the part of a rank cannot be taken: {str(error)[:200]}") from error
        if sorted(map(str, world.pg_names.values())) != sorted(named):
            raise MalformedError("this torch calls the groups otherwise")
        yield meshes
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        world.group_count = 0


def _mesh(spec: MeshSpec, rank: int) -> Any:
    from torch.distributed.device_mesh import DeviceMesh

    if spec.device not in _DEVICES or not all(_NAME.fullmatch(name) for name in spec.names or ()):
        raise MalformedError(f"there is no mesh of {spec.device!r:.40} here, or its dimensions are oddly called")
    ranks = torch.tensor(spec.ranks, dtype=torch.int).view(spec.shape)
    names = tuple(spec.names) if spec.names is not None else None
    patches = Patches()
    patches.replace(DeviceMesh, "_init_process_groups", lambda _: lambda *_, **__: list(spec.groups))
    try:
        return DeviceMesh(spec.device, ranks, mesh_dim_names=names, _rank=rank)
    finally:
        patches.undo()


def placement(kind: str, of: int | None) -> Any:
    """Return where a part of a DTensor lies."""
    from torch.distributed.tensor import Partial, Replicate, Shard

    if kind == "S" and of is not None:
        return Shard(of)
    if kind == "R" and of is None:
        return Replicate()
    if kind in REDUCTIONS and of is None:
        return Partial(kind)
    raise MalformedError(f"no part of a tensor lies as {kind!r:.40} says")


def dtensor(spec: DTensorSpec, part: Any, mesh: Any, placements: Sequence[Any]) -> Any:
    """Return a DTensor of a fake part."""
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._dtensor_spec import DTensorSpec as Spec
    from torch.distributed.tensor._dtensor_spec import TensorMeta

    if len(placements) != mesh.ndim:
        raise MalformedError("a DTensor has a placement for each dimension of its mesh")
    tag, *sizes = spec.shape
    shape: Any = torch.Size(sizes) if tag == "z" else tuple(sizes)
    meta = TensorMeta(shape, tuple(spec.stride), part.dtype)
    made: Any = DTensor(part, Spec(mesh, tuple(placements), tensor_meta=meta), requires_grad=spec.requires_grad)
    if spec.parameter:
        made._is_param = True
    return made


def group_names(spec: GraphSpec) -> frozenset[str]:
    """Return the names of groups, which stand as text in what torch has traced."""
    return frozenset(str(group[1]) for group in spec.ranks[2:])
