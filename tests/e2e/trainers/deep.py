"""One graph that takes its compiler a while: many layers of different widths; prints the loss as its last line."""

import itertools
import json

import torch

torch.manual_seed(0)
widths = [8 + 3 * i for i in range(10)]
layers = [
    torch.nn.Sequential(torch.nn.LayerNorm(a), torch.nn.Linear(a, b), torch.nn.GELU())
    for a, b in itertools.pairwise(widths)
]
loss = torch.compile(torch.nn.Sequential(*layers))(torch.randn(4, widths[0])).square().mean()
loss.backward()
print(json.dumps(loss.item()))
