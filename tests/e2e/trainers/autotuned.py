"""A trainer that uses max-autotune: inductor measures several ways to multiply, and takes the fastest.

It prints losses and gradients to the last bit, how often inductor measured a candidate in this process, and how often
inductor chose by measuring, as the benches count it. With a second argument, candidates whose names begin with it are
said to be the fastest.
"""

import json
import sys
from typing import Any

import torch
from torch._inductor import select_algorithm

from benches.harness.compile_counts import start_counting

measured: list[str] = []
favourite = "".join(sys.argv[2:3])
original = select_algorithm.AlgorithmSelectorCache.benchmark_choice


def counted(choice: Any, *arguments: Any, **options: Any) -> Any:
    measured.append(choice.name)
    if favourite:
        return 1.0 if choice.name.startswith(favourite) else 2.0
    return original(choice, *arguments, **options)


select_algorithm.AlgorithmSelectorCache.benchmark_choice = staticmethod(counted)

counts = start_counting()
torch.manual_seed(0)
rows = int(sys.argv[1])
weight = torch.randn(2, 64, 48, requires_grad=True)
options = {"max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"}
compiled = torch.compile(lambda x: torch.bmm(x, weight).relu().square().mean(), dynamic=False, options=options)
x = torch.linspace(-1, 1, 2 * rows * 64).reshape(2, rows, 64).clone().requires_grad_()
loss = compiled(x)
loss.backward()
assert x.grad is not None
assert weight.grad is not None
numbers = [loss.item().hex(), *(n.hex() for n in x.grad.flatten().tolist() + weight.grad.flatten().tolist())]
print(json.dumps({"numbers": numbers, "measured": len(measured), "autotunes": counts.autotunes}))
