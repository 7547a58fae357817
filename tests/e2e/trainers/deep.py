"""One graph that takes long to compile, with many layers of different widths; the last line is the loss."""

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
