"""What trainer and worker must say in the same way about DTensors, the meshes that they lie on, and ranks.

Nothing here imports `torch.distributed.tensor`: a process that has no DTensor has not loaded it, and need not.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import Value

METHODS = frozenset({"full_tensor", "redistribute", "to_local"})
"""Methods of DTensors that a graph may call, beside those of all tensors."""

_FROM_LOCAL = "torch.distributed.tensor.DTensor.from_local"


def is_dtensor(value: Any) -> bool:
    """Whether it is a DTensor, of torch's own class and no other."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and type(value) is module.DTensor


def mesh_of(value: Any) -> Any:
    """Return the mesh that a value is, or that torch has put an object in place of to trace with; else None."""
    kind: Any = getattr(sys.modules.get("torch.distributed.device_mesh"), "DeviceMesh", None)
    value = getattr(value, "real_obj", value)
    return value if kind is not None and type(value) is kind else None


def parts_held(args: Sequence[Any]) -> list[Value]:
    """Return of each DTensor among a graph's inputs what this rank has of it, and the mesh that it lies on.

    torch's key has the whole tensor's sizes, where its parts lie, and what makes two meshes equal. How a part lies in
    memory, which groups a mesh has, and of which other it is a part, it does not have.
    """
    held: list[Value] = []
    for position, value in enumerate(args):
        if is_dtensor(value):
            part = value._local_tensor
            strided = (tuple(part.stride()), part.storage_offset())
            grad = f"{part.requires_grad} {value.is_leaf}"
            text = f"{part.dtype} {part.device} {part.layout} {tuple(part.shape)} {strided} {grad}"
            held.append(["l", position, text, described(mesh_of(value._spec.mesh)) or ""])
    return held


def inputs_for_key(args: Sequence[Any]) -> list[Any]:
    """Return a graph's inputs as torch is to take them into its key: meshes and DTensors as what they are.

    torch pickles a mesh with what it holds, and from there on pickles by identity what it has met (its pickler's
    `fast` is off): a graph that was rebuilt of equal parts, not of the same ones, then has another key. And it tells a
    DTensor whose sizes are a `torch.Size` from one whose sizes are a tuple, which no compile does.
    """
    return [_for_key(value) for value in args]


def _for_key(value: Any) -> Any:
    if is_dtensor(value) and (meta := value._spec.tensor_meta) is not None:
        import torch

        spec = dataclasses.replace(value._spec, tensor_meta=meta._replace(shape=torch.Size(meta.shape)))
        return f"DTensor {spec._stable_hash()} {value.requires_grad}"
    return value if (mesh := mesh_of(value)) is None else described(mesh) or value


def described(mesh: Any) -> str | None:
    """Return all that a compile may ask of a mesh, with the one that it is a part of; None where `family_of` is."""
    if (family := family_of(mesh)) is None:
        return None
    said = [(name, one.device_type, layout_of(one)) for name, one in family]
    return f"mesh {next(row for row, (_, one) in enumerate(family) if one is mesh)} of {said}"


def family_of(mesh: Any) -> list[tuple[str, Any]] | None:
    """Return the whole mesh that a mesh is a part of, the flattened ones that this knows by a name, and it itself.

    Each once, with that name or none. None where one of them is not as `layout_of` says.
    """
    root = getattr(mesh, "_root_mesh", mesh) or mesh
    flattened = getattr(root, "_flatten_mapping", None)
    if not isinstance(flattened, dict):
        return None
    family = [("", root), *flattened.items()]
    if not any(one is mesh for _, one in family):
        family.append(("", mesh))
    if any(layout_of(one) is None or one._root_mesh is not (None if one is root else root) for _, one in family):
        return None
    return family


def layout_of(mesh: Any) -> tuple[list[int], list[Value], list[str] | None, list[str]] | None:
    """Return a mesh's ranks, the sizes and strides of each dimension in their row, its names, and its groups.

    None where this torch has meshes otherwise, where ranks are threads or stand in groups in an order of the program's,
    or where the process has no part in it.
    """
    groups, axes = getattr(mesh, "_dim_group_names", None), getattr(getattr(mesh, "_layout", None), "axes", None)
    ranks = getattr(mesh, "_flatten_rank_map", None)
    if groups is None or axes is None or ranks is None or len(groups) != len(axes):
        return None
    if getattr(mesh, "_thread_id", 0) is not None or getattr(mesh, "_preserve_rank_order", False):
        return None
    names = None if mesh.mesh_dim_names is None else [*mesh.mesh_dim_names]
    return [*ranks], [[[*axis.shape], [*axis.stride]] for axis in axes], names, [str(group) for group in groups]


@contextlib.contextmanager
def without_hashes(meshes: Iterable[Any]) -> Iterator[None]:
    """Have meshes forget their `hash()` while the block lasts; asked, they compute it again.

    torch pickles a mesh for its key, with the hash that it keeps, and that of a text is another in each process: no
    key was met again (2.13.0, wherever tensor parallelism is compiled).
    """
    kept = [(mesh, vars(mesh)["_hash"]) for mesh in meshes if "_hash" in vars(mesh)]
    for mesh, _ in kept:
        mesh._hash = None
    try:
        yield
    finally:
        for mesh, value in kept:
            mesh._hash = value


def calls() -> Mapping[str, Any]:
    """Return the functions that make DTensors, by the names that only a node may give them; none before the import."""
    module = sys.modules.get("torch.distributed.tensor")
    return {} if module is None else {_FROM_LOCAL: module.DTensor.from_local}


def check_from_local(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], where: str) -> None:
    """Raise `MalformedError` where a DTensor is made of something else than a node, a mesh and placements."""
    import torch

    if name != _FROM_LOCAL:
        return
    if not 1 <= len(args) <= 3 or not all(isinstance(given, torch.fx.Node) for given in args[:2]):
        raise MalformedError(f"{where} makes a DTensor of something that is no node")
    if kwargs.get("run_check", False) is not False:
        raise MalformedError(f"{where} has ranks compare what they hold")
    if set(kwargs) - {"device_mesh", "placements", "run_check", "shape", "stride", "grad_placements"}:
        raise MalformedError(f"{where} makes a DTensor with what is not known here: {sorted(kwargs)!r:.80}")
