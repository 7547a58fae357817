"""One cell of a sweep: one step of a tiny model with the given width and activation; prints the loss."""

import json
import sys

import torch

width, activation = int(sys.argv[1]), getattr(torch.nn.functional, sys.argv[2])
torch.manual_seed(0)
weight = torch.randn(width, width, requires_grad=True)


@torch.compile(dynamic=False)
def loss_of(x: torch.Tensor) -> torch.Tensor:
    return activation(x @ weight).square().mean()


loss = loss_of(torch.randn(4, width))
loss.backward()
print(json.dumps(loss.item()))
