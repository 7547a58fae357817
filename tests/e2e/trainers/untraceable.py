"""Programs with something that dynamo treats in a way of its own, one for each argument.

The last line says of each whether compiled and eager agree.
"""

import json
import os
import sys
from typing import Any

import torch


def graph_break(x: torch.Tensor) -> torch.Tensor:
    x = x * 2
    torch._dynamo.graph_break()
    return x + 1


def context(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        x = x * 2
        torch._dynamo.graph_break()
        return x + 1


def several(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x * 3)


def dynamic(x: torch.Tensor) -> torch.Tensor:
    return x.cos() * x.shape[0]


def check(name: str, x: torch.Tensor) -> bool:
    torch._dynamo.reset()
    function: Any = globals().get(name, several)
    if name == "mark_dynamic":
        torch._dynamo.mark_dynamic(x, 0)
        function = dynamic
    if name == "fullgraph":
        return torch.allclose(torch.compile(several, fullgraph=True)(x), several(x))
    if name == "optimizer":
        return optimized()
    if name == "ddp":
        return parallel(x)
    compiled: Any = torch.compile(function)
    return torch.allclose(compiled(x), function(x))


def optimized() -> bool:
    found = []
    for compiled in (True, False):
        weight = torch.nn.Parameter(torch.linspace(0, 1, 6))
        weight.grad = torch.ones(6)
        optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
        step = torch.compile(optimizer.step) if compiled else optimizer.step
        step()
        step()
        found.append(weight.detach().clone())
    return torch.allclose(found[0], found[1])


def parallel(x: torch.Tensor) -> bool:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    store = torch.distributed.HashStore()  # type: ignore[attr-defined] # torch's
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        net = torch.nn.Linear(x.shape[1], 3)
        wrapped = torch.nn.parallel.DistributedDataParallel(net)
        return torch.allclose(torch.compile(wrapped)(x), net(x))
    finally:
        torch.distributed.destroy_process_group()


print(json.dumps({name: check(name, torch.linspace(0, 1, 10).reshape(5, 2)) for name in sys.argv[1:]}))
