"""A loop with accelerate, as `accelerate launch --dynamo_backend inductor` starts it; no word of the daemon."""

import hashlib
import json

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, TensorDataset

set_seed(0)
accelerator = Accelerator(gradient_accumulation_steps=2)
model = torch.nn.Sequential(torch.nn.Linear(9, 35), torch.nn.SiLU(), torch.nn.Linear(35, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
x = torch.randn(32, 9)
loader = DataLoader(TensorDataset(x, x.mean(1, keepdim=True)), batch_size=8)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
losses = []
for given, wanted in loader:
    with accelerator.accumulate(model):
        loss = torch.nn.functional.mse_loss(model(given), wanted)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
state = accelerator.unwrap_model(model, keep_torch_compile=False).state_dict()
weights = hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()
print(json.dumps({"losses": losses, "checkpoint": weights, "dynamo": str(accelerator.state.dynamo_plugin.backend)}))
