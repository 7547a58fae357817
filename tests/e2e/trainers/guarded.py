"""One symbolic graph with a guard on its size: the operators are the same on both sides of the bound.

The last line holds the compiled result and the eager one for the size given.
"""

import json
import sys

import torch

size = int(sys.argv[1])


def function(x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] > 10:  # dynamo guards on the side, although the graph is the same on both
        return (x * 2).sum(0)
    return (x * 2).sum(0)


x = torch.arange(size * 3, dtype=torch.float32).reshape(size, 3)
compiled = torch.compile(function, dynamic=True)(x)
print(json.dumps({"compiled": compiled.tolist(), "eager": function(x).tolist()}))
