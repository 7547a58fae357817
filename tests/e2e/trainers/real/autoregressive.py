"""The training loop that x-transformers shows for a decoder over bytes, its wrapper compiled; no word of the daemon."""

import hashlib
import json

import torch
from torch.utils.data import DataLoader, Dataset
from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

LENGTH = 24
torch.manual_seed(0)
model = AutoregressiveWrapper(
    TransformerWrapper(
        num_tokens=96,
        max_seq_len=LENGTH,
        attn_layers=Decoder(dim=32, depth=2, heads=2, attn_dim_head=32, rotary_pos_emb=True),
    )
)


class Text(Dataset):
    """Random windows of one text, as in the package's example."""

    def __init__(self, data: torch.Tensor) -> None:
        self.data = data

    def __getitem__(self, index: int) -> torch.Tensor:
        start = int(torch.randint(0, len(self.data) - LENGTH - 1, (1,)))
        return self.data[start : start + LENGTH + 1].long()

    def __len__(self) -> int:
        return len(self.data) // LENGTH


loader = DataLoader(Text(torch.randint(0, 96, (240,))), batch_size=2)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
compiled = torch.compile(model)
losses = []
batches = iter(loader)
for _ in range(2):
    model.train()
    total = 0.0
    for _ in range(2):
        loss = compiled(next(batches))
        (loss / 2).backward()
        total += loss.item() / 2
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    optimizer.zero_grad()
    losses.append(total)
model.eval()
with torch.no_grad():
    losses.append(compiled(next(batches)).item())
state = model.state_dict()
weights = hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()
print(json.dumps({"losses": losses, "checkpoint": weights}))
