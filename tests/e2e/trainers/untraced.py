"""A trainer of the lab, or a small GPT: `untraced.py multires|gradients|backbones|gpt SIDES`, a step at each side.

The last line has the losses, and how many functions dynamo traced, as torch itself counts them.
"""

import json
import sys

import torch
from torch._dynamo.utils import compilation_time_metrics
from torch.nn import functional

from benches.startup.models import trainer_of


class Block(torch.nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.inward, self.outward = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.feedforward = torch.nn.Sequential(
            torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        parts = self.inward(self.norm_1(x)).chunk(3, dim=-1)
        q, k, v = (part.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2) for part in parts)
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.outward(found.transpose(1, 2).reshape(batch, tokens, width))
        more: torch.Tensor = self.feedforward(self.norm_2(x))
        return x + more


class GPT(torch.nn.Module):
    """As nanoGPT has it: norms before, learned positions, and one matrix for reading and writing."""

    def __init__(self, depth: int, width: int = 24, heads: int = 2, words: int = 32, tokens: int = 64) -> None:
        super().__init__()
        self.embed, self.place = torch.nn.Embedding(words, width), torch.nn.Embedding(tokens, width)
        self.blocks = torch.nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = torch.nn.LayerNorm(width), torch.nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, index: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        x = self.embed(index) + self.place(torch.arange(index.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return functional.cross_entropy(logits.view(-1, logits.shape[-1]), target.reshape(-1))


def of_gpt(lengths: tuple[int, ...]) -> list[float]:
    torch.manual_seed(0)
    model = GPT(depth=2)
    optimizer = torch.optim.AdamW(model.parameters())
    step = torch.compile(model, dynamic=False)
    losses = []
    for length in lengths:
        text = torch.randint(32, (2, length + 1))
        loss = step(text[:, :-1].contiguous(), text[:, 1:].contiguous())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def of_lab(model: str, sides: tuple[int, ...]) -> list[float]:
    trainer = trainer_of(model, depth=1, resolutions=sides, steps=1, backend="inductor")
    return [record.loss for record in trainer.steps()]


model, sides = sys.argv[1], tuple(map(int, sys.argv[2].split(",")))
losses = of_gpt(sides) if model == "gpt" else of_lab(model, sides)
print(json.dumps({"losses": losses, "traced": len(compilation_time_metrics.get("bytecode_tracing", []))}))
