"""A small trainer with static shapes: it takes two steps at each given batch size; the last line holds the losses."""

import json
import sys

import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16), torch.nn.Linear(16, 8))
compiled = torch.compile(model, dynamic=False)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
losses = []
for size in [int(text) for text in sys.argv[1:]] or [4]:
    for _ in range(2):
        optimizer.zero_grad()
        loss = compiled(torch.randn(size, 8)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print(json.dumps(losses))
