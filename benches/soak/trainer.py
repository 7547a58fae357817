"""A tiny trainer with torch: compiles one small graph and compares it with eager; exit code 1 where they differ.

python benches/soak/trainer.py VARIANT
"""

from __future__ import annotations

import sys

import torch


def main() -> int:
    """Run forward and backward, compiled and eager."""
    torch.manual_seed(0)
    variant = int(sys.argv[1])
    width = 16 + 4 * variant
    layer = torch.nn.Linear(width, width)
    x = torch.randn(8, width)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(layer(x)).square().mean() * (variant + 1)

    eager = loss(x)
    (gradient,) = torch.autograd.grad(eager, layer.weight)
    compiled = torch.compile(loss)(x)
    (again,) = torch.autograd.grad(compiled, layer.weight)
    good = torch.allclose(eager, compiled, atol=1e-5) and torch.allclose(gradient, again, atol=1e-5)
    print("equal" if good else f"eager {eager.item()}, compiled {compiled.item()}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
