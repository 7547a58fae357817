"""A trainer with a DataLoader whose two forked workers run a compiled transform of their own; it prints the losses.

The model's first graph is compiled before the fork, so the workers inherit a client with an open connection.
"""

import json

import torch
from torch.utils.data import DataLoader, Dataset


@torch.compile(dynamic=False)
def transform(image: torch.Tensor) -> torch.Tensor:
    return (image.sin() + 1) / 2


class Images(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> torch.Tensor:
        return transform(torch.full((28, 3), float(index)))


torch.manual_seed(0)
model = torch.nn.Linear(3, 28)
compiled = torch.compile(model, dynamic=False)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
losses = [compiled(torch.ones(4, 28, 3)).square().mean().item()]
for _ in range(2):
    for batch in DataLoader(Images(), batch_size=4, num_workers=2, multiprocessing_context="fork"):
        optimizer.zero_grad()
        loss = compiled(batch).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
print(json.dumps(losses))
