"""A small model whose activation is the caller's choice: what `benches.startup.activations` starts, in pairs.

    python -m benches.startup.activation_program module gelu

Prints one JSON document: whether what torch.compile makes of it computes what eager does, and how often dynamo traced.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
ACTIVATION: Callable[[Tensor], Tensor] = F.gelu


class OfTheModule(nn.Module):
    """Calls a function that is a global of its module."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.outward = nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        """Return the loss."""
        y: Tensor = self.outward(ACTIVATION(self.inward(x)))
        return y.square().mean()


class OfAnAttribute(OfTheModule):
    """Calls a function that is an attribute of the object."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return the loss."""
        y: Tensor = self.outward(self.activation(self.inward(x)))
        return y.square().mean()


def main() -> None:
    """Compute loss and gradient, compiled and eagerly."""
    global ACTIVATION  # noqa: PLW0603 - a setting, as in many a training script
    parser = argparse.ArgumentParser(prog="python -m benches.startup.activation_program", description=__doc__)
    parser.add_argument("where", choices=["module", "attribute"])
    parser.add_argument("activation", choices=list(ACTIVATIONS))
    parser.add_argument("--save-portable", type=Path)
    options = parser.parse_args()
    ACTIVATION = ACTIVATIONS[options.activation]
    torch.manual_seed(0)
    model = OfTheModule() if options.where == "module" else OfAnAttribute(ACTIVATIONS[options.activation])
    x = torch.randn(8, 16)
    expected = _computed(model, model, x)
    found = _computed(model, torch.compile(model), x)
    if options.save_portable:
        saved = torch.compiler.save_cache_artifacts()
        assert saved is not None
        options.save_portable.write_bytes(saved[0])
    from torch._dynamo.utils import compilation_time_metrics

    print(
        json.dumps(
            {
                "as_eager": all(map(torch.allclose, expected, found)),
                "loss": found[0].item(),
                "eager_loss": expected[0].item(),
                "frames_traced": len(compilation_time_metrics.get("bytecode_tracing", [])),
            }
        ),
        flush=True,
    )


def _computed(model: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    model.zero_grad()
    loss = forward(x)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
    gradient = next(model.parameters()).grad
    assert gradient is not None
    return loss.detach(), gradient.clone()


if __name__ == "__main__":
    main()
