"""Collectives that a graph may name: what ranks send to each other, as torch traces it.

torch writes them as operators whose last argument is a group's name. They are called by nodes alone, since what they
are called with must be looked at: their text is a reduction's name or a group's number, and nothing else.
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from compile_torch.messages import texts_in
from compile_wire.errors import MalformedError

REDUCTIONS = frozenset({"sum", "avg", "max", "min", "product"})
"""Ways in which partial results come together."""

GROUP = re.compile(r"0|[1-9][0-9]{0,5}")
"""torch numbers its groups; those that a program has named are not carried."""

_OPERATORS: Mapping[str, tuple[str, ...]] = {
    "_c10d_functional": (
        "all_gather_into_tensor", "all_gather_into_tensor_coalesced", "all_reduce", "all_reduce_",
        "all_reduce_coalesced", "all_reduce_coalesced_", "all_to_all_single", "broadcast", "broadcast_",
        "reduce_scatter_tensor", "reduce_scatter_tensor_coalesced", "wait_tensor", "wait_tensors",
        "_wrap_tensor_autograd",
    ),
    "_c10d_functional_autograd": ("all_gather_into_tensor", "all_to_all_single", "reduce_scatter_tensor"),
}  # fmt: skip
"""Without those between two ranks alone (`isend`, `irecv`, `batch_p2p_ops`), which were never run."""


@functools.cache
def collectives() -> Mapping[str, Any]:
    """Return the operators by the names that only a node may give them; none where torch was built without them."""
    import torch

    found: dict[str, Any] = {}
    for namespace, names in _OPERATORS.items():
        for name in names:
            packet = getattr(getattr(torch.ops, namespace), name, None)
            if packet is not None:
                found[f"op:{namespace}.{name}"] = packet
                found[f"op:{namespace}.{name}.default"] = packet.default
    return found


def check_collective(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], where: str) -> None:
    """Raise `MalformedError` where a collective is given text that is neither a reduction nor a numbered group."""
    if name not in collectives():
        return
    for text in texts_in([*args, *kwargs.values()]):
        if text not in REDUCTIONS and not GROUP.fullmatch(text):
            raise MalformedError(f"{where} is given {text!r:.60}: no reduction, and no group that torch numbered")
