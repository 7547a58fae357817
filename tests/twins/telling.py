"""A twin tells what it computed with this module: one line of JSON, in which equal texts mean equal to the last bit.

Each program has a copy of this file beside it, so that a folder that was kept can be run alone: `python program.py A`.
"""

from __future__ import annotations

import contextlib
import json
import random
import sys
from collections.abc import Iterator
from typing import Any

import torch

PHASE = sys.argv[1]
"""Whether this process is twin A or twin B."""


def pick(a: Any, b: Any) -> Any:
    """Return `a` in program A and `b` in program B: this is the one thing in which the twins differ."""
    return {"A": a, "B": b}[PHASE]


def inputs(rows: int, *, grad: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a tensor with rows of four numbers and a matrix, whatever torch's defaults are."""
    made = []
    for seed, shape in ((rows, (rows, 4)), (99, (4, 4))):
        generator = torch.Generator("cpu").manual_seed(seed)
        tensor = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        made.append(tensor.requires_grad_(grad))
    return made[0], made[1]


def learn(values: Any, **how: Any) -> None:
    """Take gradients of a number to which everything computed contributes; do nothing if nothing has a gradient."""
    parts = [value.float().square().sum() for value in _tensors(values) if value.requires_grad]
    if parts:
        torch.stack(parts).sum().backward(**how)


class Account:
    """Records what happens, and prints it at the end."""

    def __init__(self) -> None:
        self._told: list[dict[str, Any]] = []
        self._places: dict[str, Any] = {}

    @contextlib.contextmanager
    def place(self, name: str, seed: int) -> Iterator[None]:
        """Record the steps of one place, and what the random streams give after them."""
        torch.manual_seed(seed)
        random.seed(seed)
        before = _counters()
        self._told = []
        yield
        stream = torch.rand(2, dtype=torch.float64, device="cpu").tolist()
        self._places[name] = {"steps": self._told, "random": [*stream, random.random()]}
        print(json.dumps({"counters of": name, "before": before, "after": _counters()}))

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Record the kind of an exception in this step, but not its text, which may name folders and line numbers."""
        self._told.append({"step": name})
        try:
            yield
        except Exception as error:  # noqa: BLE001 - what a program would die of is what is compared
            self._told[-1]["raised"] = type(error).__name__
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)

    def tell(self, **values: Any) -> None:
        """Record values, and which of the tensors share memory."""
        shared: dict[int, list[str]] = {}
        for name, value in values.items():
            self._told[-1][name] = _plain(value)
            for tensor in _tensors(value):
                if tensor.device.type == "cpu":
                    with contextlib.suppress(RuntimeError, NotImplementedError):  # a wrapper has no memory of its own
                        shared.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
        if together := [names for names in shared.values() if len(names) > 1]:
            self._told[-1].setdefault("shared", []).extend(together)

    def close(self) -> None:
        """Print everything."""
        print(json.dumps(self._places, sort_keys=True))


def _counters() -> dict[str, Any]:
    """Return the client's counters so far; empty if this process has no client."""
    client = sys.modules.get("compile_client")
    return dict(client.counters()) if client else {}


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in _tensors(part)]
    return []


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        about: dict[str, Any] = {
            "kind": type(value).__name__,
            "dtype": str(value.dtype),
            "shape": list(value.shape),
            "strides": list(value.stride()),
            "device": str(value.device),
            "requires_grad": value.requires_grad,
        }
        if value.device.type == "cpu":
            detached = value.detach()
            detached = detached.double() if detached.is_floating_point() else detached
            about["data"] = torch.Tensor.tolist(detached.flatten())
        return about
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value if isinstance(value, (bool, int, float, str, type(None))) else type(value).__name__
