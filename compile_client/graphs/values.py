"""Arguments, attributes and tensors' metadata as values of a GraphSpec."""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import sys
from typing import Any

import torch

from compile_client.graphs.tables import CannotCarryError, Tables
from compile_torch.checked_calls import checked_name
from compile_torch.collectives import REDUCTIONS
from compile_torch.dtensors import is_dtensor, mesh_of
from compile_torch.operators import name_of
from compile_wire.graph.spec import DTensorSpec, TensorSpec, Value, dtensor_value, tensor_value


class Values:
    """Encodes the values of one graph module; `index` gives each of its nodes a number."""

    def __init__(self, tables: Tables, index: dict[torch.fx.Node, int]) -> None:
        self._tables = tables
        self._index = index

    def encode(self, value: Any, where: str) -> Value:
        """Return `value` in the form of `compile_wire.graph.spec`; raise `CannotCarryError` naming `where`."""
        kind = type(value)
        if value is None or kind in (bool, float, str):
            return value
        if kind is int:
            return value if -(2**63) <= value < 2**63 else ["i", str(value)]
        if isinstance(value, torch.fx.Node):
            return ["n", self._index[value]]
        if isinstance(value, torch.Size):
            return ["z", *(self.encode(item, where) for item in value)]
        if isinstance(value, (list, tuple)):
            if isinstance(value, tuple) and kind is not tuple and hasattr(value, "_fields"):
                raise CannotCarryError(f"{where} has a named tuple {kind.__name__}")
            return ["l" if isinstance(value, list) else "t", *(self.encode(item, where) for item in value)]
        if isinstance(value, dict):
            encoded: list[Value] = ["d"]
            for key, item in value.items():
                encoded += [self.encode(key, where), self.encode(item, where)]
            return encoded
        if isinstance(value, torch.Tensor):
            return self._tensor(value, where)
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            return self._symbolic(value, where)
        if (mesh := mesh_of(value)) is not None:
            return ["M", self._tables.mesh(mesh, where)]
        return self._named(value, where)

    def encode_input(self, fake: Any, given: Any, where: str) -> Value:
        """Return what stands for an input: its `fake` in dynamo's graph, where the backend was `given` the real one.

        torch makes a fake of a real tensor once more before it computes its key. Symbols that have been found to be
        numbers are plain numbers in that one, and a tensor of nothing but numbers is none of symbolic sizes any more.
        """
        if isinstance(fake, torch.Tensor):
            made_again = not isinstance(given, torch._subclasses.fake_tensor.FakeTensor)
            return self._tensor(fake, where, made_again=made_again)
        return self.encode(fake, where)

    def _named(self, value: Any, where: str) -> Value:
        if isinstance(value, slice):
            return ["s", *(self.encode(item, where) for item in (value.start, value.stop, value.step))]
        if isinstance(value, complex):
            return ["c", value.real, value.imag]
        if value is Ellipsis:
            return ["e"]
        if isinstance(value, torch.dtype):
            return ["dt", str(value).removeprefix("torch.")]
        if isinstance(value, torch.layout):
            return ["ly", str(value).removeprefix("torch.")]
        if isinstance(value, torch.memory_format):
            return ["mf", str(value).removeprefix("torch.")]
        if isinstance(value, torch.device):
            return ["dv", value.type, value.index]
        if (placement := _placement(value)) is not None:
            return placement
        if callable(value) and checked_name(value) is None and (name := name_of(value)) is not None:
            return ["f", name]
        raise CannotCarryError(f"{where} has a {type(value).__module__}.{type(value).__qualname__}")

    def _symbolic(self, value: Any, where: str) -> Value:
        kind = {torch.SymInt: "int", torch.SymFloat: "float", torch.SymBool: "bool"}[type(value)]
        node = value.node
        if not hasattr(node, "expr"):
            raise CannotCarryError(f"{where} has a symbolic number without an expression (a nested tensor's)")
        return ["x", self._tables.expression(node.expr), kind]

    def _size(self, value: Any, where: str) -> Value:
        if isinstance(value, torch.SymInt):
            return self._symbolic(value, where)
        return int(value)

    def encode_held(self, fake: torch.Tensor, given: torch.Tensor, where: str) -> Value:
        """Return what stands for a tensor that the graph holds itself: torch's key has the real one, not the `fake`."""
        return self._dtensor(fake, where, said_of=given) if is_dtensor(given) else self.encode(fake, where)

    def _dtensor(self, tensor: Any, where: str, *, said_of: Any = None) -> Value:
        held, part = tensor._spec, tensor._local_tensor
        said = held.tensor_meta if said_of is None else said_of._spec.tensor_meta
        placements = [_placement(placement) for placement in held.placements]
        if None in placements:
            raise CannotCarryError(f"{where} is a DTensor whose parts lie as {held.placements}")
        if said is None:
            raise CannotCarryError(f"{where} is a DTensor that does not say what the whole of it is")
        ordered = type(held)(held.mesh, held.placements, tensor_meta=held.tensor_meta)
        if any(getattr(ordered, name, None) != getattr(held, name, None) for name in _ORDER):
            raise CannotCarryError(f"{where} is a DTensor cut in another order than that of its mesh")
        return dtensor_value(
            DTensorSpec(
                mesh=self._tables.mesh(mesh_of(held.mesh), where),
                placements=placements,
                shape=[
                    "z" if isinstance(said.shape, torch.Size) else "t",
                    *(self._size(size, where) for size in tensor.shape),
                ],
                stride=[self._size(size, where) for size in tensor.stride()],
                requires_grad=tensor.requires_grad,
                leaf=tensor.is_leaf,
                parameter=isinstance(tensor, torch.nn.Parameter),
                part=self._tensor(part, where),
            )
        )

    def _tensor(self, tensor: torch.Tensor, where: str, *, made_again: bool = False) -> Value:
        if is_dtensor(tensor):
            return self._dtensor(tensor, where)
        if not isinstance(tensor, torch._subclasses.fake_tensor.FakeTensor):
            raise CannotCarryError(f"{where} is a {type(tensor).__name__}")
        for trait, found in (
            ("a sparse layout", tensor.layout is not torch.strided),
            ("quantized", tensor.is_quantized),
            ("lazily conjugated", tensor.is_conj()),
            ("lazily negated", tensor.is_neg()),
            ("nested", tensor.is_nested),
        ):
            if found:
                raise CannotCarryError(f"{where} is {trait}")
        storage = tensor.untyped_storage()
        item = getattr(tensor, "item_memo", None)
        shape, stride = [*tensor.shape], [*tensor.stride()]
        offset, storage_bytes = tensor.storage_offset(), storage.nbytes()
        if made_again and all(map(_is_number, (*shape, *stride, offset))):
            shape, stride, offset = list(map(int, shape)), list(map(int, stride)), int(offset)
            storage_bytes = int(storage_bytes) if _is_number(storage_bytes) else storage_bytes
        return tensor_value(
            TensorSpec(
                dtype=str(tensor.dtype).removeprefix("torch."),
                device=tensor.device.type,
                device_index=tensor.device.index,
                shape=[self._size(size, where) for size in shape],
                stride=[self._size(size, where) for size in stride],
                offset=self._size(offset, where),
                requires_grad=tensor.requires_grad,
                leaf=tensor.is_leaf,
                parameter=isinstance(tensor, torch.nn.Parameter),
                view=tensor._is_view(),
                inference=tensor.is_inference(),
                storage=self._tables.storage(storage),
                storage_bytes=self._size(storage_bytes, where),
                item=None if item is None else self._symbolic(item, where) if _is_symbolic(item) else item,
            )
        )


_ORDER = ("shard_order", "use_strided_shard_as_shard_order")


def _placement(value: Any) -> Value:
    """Return where a part of a DTensor lies, in one dimension of its mesh; None for anything else."""
    module = sys.modules.get("torch.distributed.tensor")
    if module is None:
        return None
    if type(value) is module.Shard:
        return ["P", "S", value.dim, None]
    if type(value) is getattr(module.placement_types, "_StridedShard", None) and type(value.split_factor) is int:
        return ["P", "S", value.dim, value.split_factor]
    if type(value) is module.Replicate:
        return ["P", "R", None, None]
    if type(value) is module.Partial and value.reduce_op in REDUCTIONS:
        return ["P", value.reduce_op, None, None]
    return None


def _is_number(size: Any) -> bool:
    """Whether a size is a number, or a symbol that has been found to be one."""
    return not isinstance(size, torch.SymInt) or bool(getattr(getattr(size.node, "expr", None), "is_number", False))


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))
