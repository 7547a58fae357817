"""A small mixture of experts of transformers, in float32, trained for two steps; no word of the daemon.

On a CPU its experts are multiplied by an operator of transformers' own, and no torch has that by itself.
"""

import hashlib
import json

import torch
from transformers import MixtralConfig, MixtralForCausalLM

torch.manual_seed(0)
config = MixtralConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    num_local_experts=4,
    num_experts_per_tok=2,
    max_position_embeddings=32,
)
model = MixtralForCausalLM(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
compiled = torch.compile(model)
losses = []
for _ in range(2):
    tokens = torch.randint(0, 64, (2, 8))
    loss = compiled(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
state = model.state_dict()
weights = hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()
print(json.dumps({"losses": losses, "checkpoint": weights}))
