"""A loop fed by a DataLoader with worker processes, forked before and after a compile; no word of the daemon."""

import hashlib
import json
import os

import torch
from torch.utils.data import DataLoader, Dataset


class Squares(Dataset):
    """Pairs of numbers and their squares, and the process that made them."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        x = torch.full((11,), index / 16)
        return x, x.square().mean(0, keepdim=True), os.getpid()

    def __len__(self) -> int:
        return 16


torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(11, 31), torch.nn.Tanh(), torch.nn.Linear(31, 1))
compiled = torch.compile(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
losses, makers = [], set()
for kept in (False, True):
    loader = DataLoader(Squares(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=kept)
    for _ in range(2):  # without `persistent_workers` each pass forks anew, the second from a process that has compiled
        for given, wanted, maker in loader:
            loss = torch.nn.functional.mse_loss(compiled(given), wanted)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            makers.update(maker.tolist())
assert len(makers) == 6, "two workers a pass, and two that stay"
assert os.getpid() not in makers
state = model.state_dict()
weights = hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()
print(json.dumps({"losses": losses, "checkpoint": weights}))
