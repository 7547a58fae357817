"""A symbolic graph with a number that torch can make no tensor of, so that it gives the graph up and traces again.

The last line says whether the compiled results equal the eager ones, for the number given and for another one.
"""

import json
import sys

import torch

beta = float(sys.argv[1])


def function(x: torch.Tensor, limit: float) -> torch.Tensor:
    return torch.nn.functional.smooth_l1_loss(x, torch.zeros_like(x), beta=limit, reduction="none").sum(0)


x = torch.linspace(-2, 2, 30).reshape(6, 5)
compiled = torch.compile(function, dynamic=True)
print(json.dumps([torch.allclose(compiled(x, limit), function(x, limit)) for limit in (beta, beta * 3)]))
