"""A graph with an operator of transformers', forward and backward; prints both gradients, compiled and not.

The first argument is a number in the graph. With `changed` the program gives the operator a formula of its own.
"""

import json
import sys

import torch
import transformers.integrations.moe  # noqa: F401 - for its operator

if "changed" in sys.argv:

    def keep(ctx: object, inputs: object, output: object) -> None:
        """Keep nothing."""

    def formula(ctx: object, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Return gradients that do not depend on what came in."""
        return grad.new_full((3, 4), 7.0), grad.new_full((1, 4, 5), 7.0), None

    torch.library.register_autograd("transformers::grouped_mm_fallback", formula, setup_context=keep)

number = float(sys.argv[1])


def loss(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply by one expert's weight."""
    product = torch.ops.transformers.grouped_mm_fallback(x.sin(), weight, torch.tensor([3]))
    return (product + number).square().sum()


def gradients(function: object) -> list[list[float]]:
    """Return what `function` leaves in both inputs."""
    torch.manual_seed(0)
    held = [torch.randn(3, 4, requires_grad=True), torch.randn(1, 4, 5, requires_grad=True)]
    function(*held).backward()
    return [tensor.grad.flatten().tolist() for tensor in held]


print(json.dumps({"compiled": gradients(torch.compile(loss)), "eager": gradients(loss)}))
