"""A trainer with a region of autocast that names no dtype, so that a setting of the process chooses it."""

import json
import sys

import torch

torch.manual_seed(0)
torch.set_autocast_dtype("cpu", {"float16": torch.float16, "bfloat16": torch.bfloat16}[sys.argv[1]])


@torch.compile(fullgraph=True)
def product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu"):
        return x @ w


found = product(torch.randn(4, 8), torch.randn(8, 6))
print(json.dumps([str(found.dtype), found.double().flatten().tolist()]))
