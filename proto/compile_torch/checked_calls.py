"""Functions that only a node may name, since what they are called with must be looked at: here and in the worker."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from compile_torch import collectives, dtensors
from compile_wire.errors import MalformedError

TENSOR_ATTRIBUTES = frozenset(
    "H T data device dtype imag is_cuda itemsize layout mH mT names ndim real requires_grad shape".split()
)

ATTENTION_BACKENDS = frozenset("CUDNN_ATTENTION EFFICIENT_ATTENTION FLASH_ATTENTION MATH OVERRIDEABLE".split())

_GETATTR = "getattr"
_SLICE = "op:aten.slice"
_BACKEND = "torch.nn.attention._backend_from_string"
_KERNELS = "torch.nn.attention._sdpa_kernel"


@functools.cache
def checked_calls() -> dict[str, Any]:
    """Return the functions by the names that only a node may give them.

    - `getattr` reads an attribute of a tensor: with a literal of `TENSOR_ATTRIBUTES`.
    - `torch.ops.aten.slice`, which torch's scans call, cuts lists and text, too, where it is given those.
    - `_backend_from_string` and `_sdpa_kernel` are `torch.nn.attention.sdpa_kernel` in a graph: the first reads an
      attribute by a literal of `ATTENTION_BACKENDS`, the second takes nothing but what the first has given.
    """
    import torch
    from torch.nn import attention

    found = {_GETATTR: getattr, _SLICE: torch.ops.aten.slice}
    for name in (_BACKEND, _KERNELS):
        if (function := getattr(attention, name.rpartition(".")[2], None)) is not None:
            found[name] = function
    return found


def checked_name(target: Any) -> str | None:
    """Return the name of one of these functions, or None for any other."""
    name = _names().get(id(target))
    return name if name is not None else next((name for name, of in dtensors.calls().items() if target is of), None)


def named_call(name: str) -> Any:
    """Return the function that a node names, or None where it is none of these."""
    return _always_there().get(name) or dtensors.calls().get(name)


@functools.cache
def _always_there() -> dict[str, Any]:
    return {**checked_calls(), **collectives.collectives()}


@functools.cache
def _names() -> dict[int, str]:
    """Return their names by identity: both ends ask it of each node. None of them is ever let go."""
    return {id(found): name for name, found in _always_there().items()}


def check_call(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], where: str) -> None:
    """Raise `MalformedError` where one of these functions is called with something else than it may be."""
    name = checked_name(target)
    if name == _GETATTR:
        if len(args) != 2 or not _is_node(args[0]) or kwargs:
            raise MalformedError(f"{where} reads an attribute of something that is no node")
        if not isinstance(args[1], str) or args[1] not in TENSOR_ATTRIBUTES:
            raise MalformedError(f"{where}: the attribute {args[1]!r:.80} is not one that may be read")
    elif name == _SLICE:
        if not (args and _is_node(args[0])):
            raise MalformedError(f"{where} slices something that is no node")
    elif name == _BACKEND:
        if kwargs or len(args) != 1 or not isinstance(args[0], str) or args[0] not in ATTENTION_BACKENDS:
            raise MalformedError(f"{where} names no way to compute attention")
    elif name == _KERNELS:
        ways = args[0] if len(args) == 2 and isinstance(args[0], (list, tuple)) else None
        if ways is None or kwargs or type(args[1]) is not bool or not all(_is_backend(way) for way in ways):
            raise MalformedError(f"{where} chooses attention's kernels by something else than their names")
    elif name is not None:
        dtensors.check_from_local(name, args, kwargs, where)
        collectives.check_collective(name, args, kwargs, where)


def knows_ranks(target: Any) -> bool:
    """Whether it is one of those that are traced for the rank that traces them."""
    name = checked_name(target)
    return name is not None and (name in collectives.collectives() or name in dtensors.calls())


def _is_node(value: Any) -> bool:
    import torch

    return isinstance(value, torch.fx.Node)


def _is_backend(value: Any) -> bool:
    return _is_node(value) and checked_name(value.target) == _BACKEND
