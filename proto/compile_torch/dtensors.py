"""What trainer and worker must say in the same way about DTensors, the meshes that they lie on, and ranks.

Nothing here imports `torch.distributed.tensor`: a process that has no DTensor has not loaded it, and need not.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import Value

METHODS = frozenset({"full_tensor", "redistribute", "to_local"})
"""Methods of DTensors that a graph may call, beside those of all tensors."""

REDUCTIONS = frozenset({"sum", "avg", "max", "min", "product"})
"""Ways in which partial results come together."""

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
    """Return of each DTensor among a graph's inputs what this rank has of it.

    torch's key has the whole tensor's sizes and where its parts lie. How a part lies in memory, it does not have.
    """
    held: list[Value] = []
    for position, value in enumerate(args):
        if is_dtensor(value):
            part = value._local_tensor
            strided = (tuple(part.stride()), part.storage_offset())
            text = f"{part.dtype} {part.device} {part.layout} {tuple(part.shape)} {strided} {part.requires_grad}"
            held.append(["l", position, text])
    return held


def inputs_for_key(args: Sequence[Any]) -> list[Any]:
    """Return a graph's inputs as torch is to take them into its key: meshes that stand alone as what they are.

    torch pickles a mesh with what it holds, and from there on pickles by identity what it has met (its pickler's
    `fast` is off): a graph that was rebuilt of equal parts, not of the same ones, then has another key.
    """
    return [value if (mesh := mesh_of(value)) is None or not stands_alone(mesh) else _described(mesh) for value in args]


def stands_alone(mesh: Any) -> bool:
    """Whether a mesh is no part of another, and has none; False where this torch does not say it."""
    if not hasattr(mesh, "_dim_group_names") or getattr(mesh, "_thread_id", 0) is not None:
        return False
    return getattr(mesh, "_root_mesh", mesh) is None and getattr(mesh, "_flatten_mapping", None) == {}


def _described(mesh: Any) -> str:
    names = mesh.mesh_dim_names
    groups = [str(name) for name in mesh._dim_group_names]
    return f"mesh of {mesh.device_type}: {mesh.mesh.tolist()}, {names}, {groups}"


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
