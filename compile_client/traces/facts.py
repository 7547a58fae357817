"""What torch takes from the tensors of a frame without a guard, or checks only when a tree of guards is made."""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

from typing import Any

import torch

from compile_client.traces.errors import NotSkippedError

_WORDS = (
    "sizes",
    "strides",
    "dtype",
    "device",
    "need of a gradient",
    "place as a leaf",
    "type",
    "marks",
    "identity",
    "memory",
    "alignment",
)
_OWN_MARK = "_dynamo_static_input_type='unguarded'"
"""dynamo's own, of each parameter that it has traced; only CUDA graphs depend on it."""
_ALIGNMENT = 16
"""Bytes; inductor's `ALIGNMENT`."""
_KINDS = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)


def tensor_facts(values: list[tuple[Any, torch.Tensor]]) -> list[list[Any]]:
    """Return what must be the same of each tensor: [the number of its source, what `_WORDS` says].

    `identity` and `memory` are the position of the first tensor that is the same, or is in the same memory: torch does
    not guard that two parameters are two.
    """
    first: dict[int, int] = {}
    owners: dict[int, int] = {}
    found = []
    for position, (number, value) in enumerate(values):
        if type(value) not in _KINDS or value.layout is not torch.strided:
            raise NotSkippedError("subclass", f"a {type(value).__qualname__} is among its inputs")
        marks = [
            mark
            for name in sorted(vars(value))
            if "_dynamo" in name and (mark := f"{name}={vars(value)[name]!r}") != _OWN_MARK
        ]
        found.append(
            [
                number,
                list(value.shape),
                list(value.stride()),
                str(value.dtype),
                str(value.device),
                value.requires_grad,
                value.is_leaf,
                type(value).__qualname__,
                marks,
                first.setdefault(id(value), position),
                owners.setdefault(value.untyped_storage()._cdata, position),
                value.storage_offset() * value.element_size() % _ALIGNMENT == 0,
            ]
        )
    return found


def differing_fact(recorded: list[Any], live: list[Any]) -> str:
    """Return in words in what two facts of one tensor differ; empty where they do not."""
    for word, there, here in zip(_WORDS, recorded[1:], live[1:], strict=True):
        if there != here:
            return f"{word} {here} here, {there} there"
    return ""


def remembered_sizes(code: Any, closure: Any) -> list[list[Any]]:
    """Return what dynamo remembers of the sizes that a function met: from it, dynamo makes sizes dynamic later."""
    from torch._dynamo.pgo import CodeId, get_code_state

    if not torch._dynamo.config.automatic_dynamic_shapes:
        return []
    state = get_code_state().get(CodeId.make(code, closure))
    found = []
    for name, entry in sorted(state.automatic_dynamic.items()) if state is not None else ():
        parts = [_written(entry.scalar), _written(entry.size), _written(entry.stride)]
        if not any(isinstance(part, (int, float, list)) for part in parts):
            raise NotSkippedError("dynamic", f"{name} has had several sizes")
        found.append([name, *parts])
    return found


def remember_sizes(code: Any, closure: Any, sizes: list[list[Any]]) -> None:
    """Have dynamo remember these sizes, as it would have after tracing."""
    from torch._dynamo.pgo import CodeId, FrameStateSizeEntry, get_code_state

    if not sizes:
        return
    state = get_code_state()[CodeId.make(code, closure)]
    for name, *parts in sizes:
        scalar, size, stride = (_read(part) for part in parts)
        state.automatic_dynamic[name] |= FrameStateSizeEntry(scalar=scalar, size=size, stride=stride)


def _written(part: Any) -> Any:
    from torch._dynamo.pgo import InferStride, auto_dynamic, auto_unset

    if part is auto_dynamic or part is auto_unset:
        return "dynamic" if part is auto_dynamic else "unset"
    if isinstance(part, tuple):
        sizes: list[Any] = [["infer", size.dim] if isinstance(size, InferStride) else size for size in part]
        if any(size is auto_dynamic for size in sizes):
            raise NotSkippedError("dynamic", "dynamo has met several sizes of its inputs")
        return sizes
    return part


def _read(part: Any) -> Any:
    from torch._dynamo.pgo import InferStride, auto_dynamic, auto_unset

    if isinstance(part, str):
        return auto_dynamic if part == "dynamic" else auto_unset
    if isinstance(part, list):
        return tuple(InferStride(size[1]) if isinstance(size, list) else size for size in part)
    return part
