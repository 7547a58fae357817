"""Trains until every graph has swapped to compiled code, or for a number of steps; prints how and when it swapped.

The arguments are the highest number of steps and the batch sizes, each of which is a graph of its own. The output holds
the losses against those of eager runs.
"""

import json
import sys
import time

import torch

import compile_client

most, sizes = int(sys.argv[1]), [int(text) for text in sys.argv[2:]]


def build() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16), torch.nn.Linear(16, 8))


model, reference = build(), build()
compiled = torch.compile(model, dynamic=False)
optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (model, reference)]
rows, done = [], 0
for step in range(most):
    x = torch.randn(sizes[step % len(sizes)], 8, generator=torch.Generator().manual_seed(step))
    start = time.monotonic()
    losses = []
    for each, optimizer in zip((compiled, reference), optimizers, strict=True):
        optimizer.zero_grad()
        loss = each(x).square().mean()
        loss.backward()
        losses.append(loss.item())
    gradients = [[p.grad.clone() for p in each.parameters()] for each in (model, reference)]
    for optimizer in optimizers:
        optimizer.step()
    far = max((a - b).abs().max().item() for a, b in zip(*gradients, strict=True))
    counters = compile_client.counters()
    settled = counters["hits"] + counters["compiled_by_daemon"] + counters["compiled_here"]
    rows.append({"losses": losses, "gradients_apart": far, "settled": settled, "seconds": time.monotonic() - start})
    done = done + 1 if settled == len(sizes) and step >= len(sizes) else 0
    if done > 2 * len(sizes):  # it takes some steps after the last swap
        break
    time.sleep(0.02)
print(json.dumps(rows))
