"""Values of a GraphSpec become Python values, tensors of them fake."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from compile_torch.key.state import dtype_of
from compile_torch.operators import resolve
from compile_wire.errors import MalformedError
from compile_wire.graph.spec import TensorSpec, Value, dtensor_from, tensor_from
from compiler_daemon.worker.ranks import dtensor, placement
from compiler_daemon.worker.shapes import Shapes

_LAYOUTS = {"strided": torch.strided}
_MEMORY_FORMATS = {
    "contiguous_format": torch.contiguous_format,
    "channels_last": torch.channels_last,
    "channels_last_3d": torch.channels_last_3d,
    "preserve_format": torch.preserve_format,
}
_DEVICES = frozenset({"cpu", "cuda", "meta", "xpu", "mps"})
_EVERYWHERE = frozenset({"cpu", "meta"})


class Values:
    """Decodes the values of one graph. Tensors that shared memory share it again."""

    def __init__(self, shapes: Shapes, fake_mode: FakeTensorMode, meshes: Sequence[Any] = ()) -> None:
        self._meshes = meshes
        self._shapes = shapes
        self.fake_mode = fake_mode
        self._storages: dict[int, torch.UntypedStorage] = {}

    def decode(self, value: Value, nodes: Sequence[torch.fx.Node]) -> Any:
        """Return the value; `nodes` are those that it may refer to."""
        if not isinstance(value, list):
            return value
        tag, items = value[0], value[1:]
        if tag == "n":
            return nodes[items[0]]
        if tag == "l":
            return [self.decode(item, nodes) for item in items]
        if tag == "t":
            return tuple(self.decode(item, nodes) for item in items)
        if tag == "z":
            return torch.Size([self.decode(item, nodes) for item in items])
        if tag == "d":
            return self._dict(items, nodes)
        if tag == "s":
            return slice(*(self.decode(item, nodes) for item in items))
        if tag == "x":
            return self._shapes.number(items[0], items[1])
        if tag == "T":
            return self._tensor(tensor_from(value))
        if tag == "f":
            return resolve(items[0])
        if tag == "M":
            return self._meshes[items[0]]
        if tag == "P":
            return placement(items[0], items[1], items[2])
        if tag == "D":
            spec = dtensor_from(value)
            placements = [self.decode(item, ()) for item in spec.placements]
            sizes, strides = map(self._size, spec.shape[1:]), map(self._size, spec.stride)
            part = self._tensor(tensor_from(spec.part))
            return dtensor(spec, part, self._meshes[spec.mesh], placements, tuple(sizes), tuple(strides))
        return self._literal(tag, items)

    def _dict(self, items: list[Value], nodes: Sequence[torch.fx.Node]) -> dict[Any, Any]:
        try:
            return {
                self.decode(key, nodes): self.decode(item, nodes)
                for key, item in zip(items[::2], items[1::2], strict=True)
            }
        except TypeError as error:
            raise MalformedError("a dict's key cannot be hashed") from error

    def _literal(self, tag: str, items: list[Value]) -> Any:
        if tag == "i":
            return int(items[0])
        if tag == "c":
            return complex(*items)
        if tag == "e":
            return Ellipsis
        if tag == "dt":
            return dtype_of(items[0])
        if tag == "ly" and items[0] in _LAYOUTS:
            return _LAYOUTS[items[0]]
        if tag == "mf" and items[0] in _MEMORY_FORMATS:
            return _MEMORY_FORMATS[items[0]]
        if tag == "dv":
            return _device(items[0], items[1])
        raise MalformedError(f"a value tagged {tag!r:.20} has no meaning here: {items!r:.80}")

    def _size(self, value: Value) -> Any:
        return value if isinstance(value, int) else self._shapes.number(value[1], "int")

    def _tensor(self, spec: TensorSpec) -> FakeTensor:
        device = _device(spec.device, spec.device_index)
        dtype = dtype_of(spec.dtype)
        sizes = [self._size(size) for size in spec.shape]
        strides = [self._size(size) for size in spec.stride]
        try:
            storage = self._storage(spec)
            with torch.inference_mode(spec.inference), torch.no_grad():
                plain = torch.empty([0], dtype=dtype, device="meta")
                with self._shapes.shape_env.suppress_guards():
                    plain.set_(storage, self._size(spec.offset), sizes, strides)  # type: ignore[call-overload]
            if spec.view and not spec.inference:
                plain = plain.detach()
            if spec.requires_grad:
                plain.requires_grad_()
                if not spec.leaf:
                    # Not `view_as`: for a tensor of no data it takes no symbolic sizes.
                    with torch.enable_grad(), self._shapes.shape_env.suppress_guards():
                        plain = torch.ops.aten.alias.default(plain)
        except RuntimeError as error:
            raise MalformedError(f"a tensor cannot be made of its metadata: {str(error)[:200]}") from error
        with self.fake_mode:
            fake = FakeTensor(self.fake_mode, plain, device)
        if spec.parameter:
            fake._is_param = True
        if spec.item is not None:
            fake.item_memo = self.decode(spec.item, ())
        return fake

    def _storage(self, spec: TensorSpec) -> torch.UntypedStorage:
        if spec.storage in self._storages:
            return self._storages[spec.storage]
        # Not `torch.UntypedStorage(size)`: that would turn a symbolic size into the number it has today.
        with self._shapes.shape_env.suppress_guards():
            storage = torch.empty([self._size(spec.storage_bytes)], dtype=torch.uint8, device="meta").untyped_storage()
        if spec.storage >= 0:
            self._storages[spec.storage] = storage
        return storage


def _device(kind: str, index: int | None) -> torch.device:
    if kind not in _DEVICES:
        raise MalformedError(f"no device {kind!r:.40} here")
    device = torch.device(kind) if index is None else torch.device(kind, index)
    # torch itself would find out in the middle of a compile, with processes and threads started for that device.
    if kind not in _EVERYWHERE and (count := _devices(kind)) <= (device.index or 0):
        raise MalformedError(f"the graph is for {device}, and this worker has {count or 'no'} devices of that kind")
    return device


@functools.cache
def _devices(kind: str) -> int:
    module = torch.get_device_module(kind)
    return int(module.device_count()) if module.is_available() else 0
