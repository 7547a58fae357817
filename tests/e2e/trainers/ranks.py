"""Two ranks of data-parallel training over gloo; prints the losses and the parameters' norms of both on one line.

RANKS_TIMEOUT_S is how long a collective waits for the other rank.
"""

import datetime
import gc
import json
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


class Model(torch.nn.Module):
    """A class of the trainer's own, because dynamo skips torch's own modules below a wrapper that it cannot trace."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 26), torch.nn.Linear(26, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.nn.functional.gelu(self.first(x)))


limit = datetime.timedelta(seconds=float(os.environ.get("RANKS_TIMEOUT_S", "1800")))
dist.init_process_group("gloo", timeout=limit)
rank = dist.get_rank()
torch.manual_seed(0)
model = DistributedDataParallel(Model())
compiled = torch.compile(model, dynamic=False)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
torch.manual_seed(rank)
losses = []
for _ in range(3):
    optimizer.zero_grad()
    loss = compiled(torch.randn(4, 8)).square().mean()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
norm = sum(parameter.detach().square().sum() for parameter in model.parameters()).item()
rows = [None] * dist.get_world_size()
dist.all_gather_object(rows, {"rank": rank, "losses": losses, "norm": norm})
if rank == 0:
    print(json.dumps(rows))
# Without this order of deletions torch 2.13 sometimes aborts here ("terminate called"), even without a daemon.
del compiled, model, optimizer, loss
torch._dynamo.reset()
gc.collect()
dist.barrier()
dist.destroy_process_group()
