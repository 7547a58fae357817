"""One symbolic graph whose guards speak of the size: the same operators on both sides of a bound.

Prints, as its last line, the compiled result and the eager one for the size given.
"""

import json
import sys

import torch

size = int(sys.argv[1])


def function(x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] > 10:  # dynamo guards on the side; the graph is the same on either
        return (x * 2).sum(0)
    return (x * 2).sum(0)


x = torch.arange(size * 3, dtype=torch.float32).reshape(size, 3)
compiled = torch.compile(function, dynamic=True)(x)
print(json.dumps({"compiled": compiled.tolist(), "eager": function(x).tolist()}))
