"""One difference between two requests, and the order in which differences are told."""

from __future__ import annotations

from dataclasses import dataclass

ORDER = (
    # What makes every graph of a process another one.
    "torch", "python", "gpu", "system", "cpu", "compiler", "environment", "rank",
    # What a kernel is, and for what.
    "target", "code",
    # What a user has switched.
    "training", "dynamic", "dtype", "device", "shape", "autocast", "requires_grad", "stride",
    # What the program computes.
    "operator", "constant", "specialisation", "wiring", "inputs", "source",
    # What it is compiled under.
    "threads", "state", "inductor", "functorch", "option",
    # What follows from the others more often than not.
    "memory", "parameter", "symbol", "guard", "meta",
)  # fmt: skip
"""Kinds, the most telling first."""

_PLACE = {kind: place for place, kind in enumerate(ORDER)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """Something in which a request differs from another one."""

    kind: str
    """One of `ORDER`."""
    text: str
    """What it is, and what it was, in words: `dtype bfloat16, was float32`."""
    cost: float = 1.0
    """How far it takes the two apart."""

    @property
    def place(self) -> int:
        """The rank of its kind in `ORDER`."""
        return _PLACE[self.kind]
