"""A trainer with two inputs that lie apart or share memory, and one is written to between two readings of the other."""

import json
import sys

import torch

ONE = torch.arange(28.0).div(9).sin()
OTHER = {"apart": ONE.clone(), "shared": ONE}[sys.argv[1]]


@torch.compile(fullgraph=True)
def between(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    y = w * 2
    x.add_(1)
    return x @ (y + w * 3)


found = between(ONE[:12].view(3, 4), OTHER[8:24].view(4, 4))
print(json.dumps(found.flatten().tolist()))
