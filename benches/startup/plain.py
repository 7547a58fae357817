"""Two models as anybody would write them, with a few hundred operators a graph: a DiT, and a GPT after nanoGPT.

Nothing of the lab is in them: plain modules, `torch.compile` with no arguments, AdamW. The widths are small, so that a
cold compile can be afforded; the number of operators is that of the depth.

Legend: B batch, T tokens, E width, H heads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BATCH = 4
_SEED = 0


class PlainRecord(NamedTuple):
    """What one step reports, by the names of the lab's records."""

    loss: float
    resolution: int
    seconds: float


class PlainTrainer:
    """Trains one model on random batches of one shape."""

    def __init__(
        self, model: nn.Module, batch: Callable[[torch.Generator], Any], size: int, steps: int, backend: str | None
    ) -> None:
        """`backend` is torch.compile's, and None is eager. `size` is said of each step."""
        self._forward: Any = model if backend is None else torch.compile(model, backend=backend)
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        self._batch = batch
        self._size = size
        self._steps = steps

    def steps(self) -> Iterator[PlainRecord]:
        """Take the steps."""
        random = torch.Generator().manual_seed(_SEED)
        for _ in range(self._steps):
            begun = time.perf_counter()
            loss = self._forward(*self._batch(random))
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
            yield PlainRecord(loss.item(), self._size, time.perf_counter() - begun)


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, *, causal: bool) -> None:
        super().__init__()
        self._heads, self._causal = heads, causal
        self.inward = nn.Linear(width, 3 * width)
        self.outward = nn.Linear(width, width)

    def forward(self, x_BTE: Tensor) -> Tensor:
        batch, tokens, width = x_BTE.shape
        split = (batch, tokens, self._heads, width // self._heads)
        q, k, v = (part.view(split).transpose(1, 2) for part in self.inward(x_BTE).chunk(3, dim=-1))
        found = F.scaled_dot_product_attention(q, k, v, is_causal=self._causal)
        mixed: Tensor = self.outward(found.transpose(1, 2).reshape(batch, tokens, width))
        return mixed


def _feedforward(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width))


class _GPTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads, causal=True)
        self.feedforward = _feedforward(width)

    def forward(self, x_BTE: Tensor) -> Tensor:
        x_BTE = x_BTE + self.attention(self.norm_1(x_BTE))
        out_BTE: Tensor = x_BTE + self.feedforward(self.norm_2(x_BTE))
        return out_BTE


class GPT(nn.Module):
    """A decoder as nanoGPT has it: learned positions, norms before, one matrix for reading and for writing."""

    def __init__(self, depth: int, *, width: int = 96, heads: int = 6, words: int = 256, tokens: int = 64) -> None:
        super().__init__()
        self.words, self.tokens = words, tokens
        self.embed, self.place = nn.Embedding(words, width), nn.Embedding(tokens, width)
        self.blocks = nn.ModuleList(_GPTBlock(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, index_BT: Tensor, target_BT: Tensor) -> Tensor:
        """Return the loss."""
        x_BTE = self.embed(index_BT) + self.place(torch.arange(index_BT.shape[1]))
        for block in self.blocks:
            x_BTE = block(x_BTE)
        logits = self.head(self.norm(x_BTE))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), target_BT.reshape(-1))


class _DiTBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm_2 = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = _Attention(width, heads, causal=False)
        self.feedforward = _feedforward(width)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x_BTE: Tensor, c_BE: Tensor) -> Tensor:
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = self.modulation(c_BE)[:, None].chunk(6, dim=-1)
        x_BTE = x_BTE + gate_1 * self.attention(self.norm_1(x_BTE) * (1 + scale_1) + shift_1)
        out_BTE: Tensor = x_BTE + gate_2 * self.feedforward(self.norm_2(x_BTE) * (1 + scale_2) + shift_2)
        return out_BTE


class DiT(nn.Module):
    """A diffusion transformer with adaptive norms (Peebles and Xie, arXiv 2212.09748), and the flow's error as loss."""

    def __init__(self, depth: int, *, width: int = 96, heads: int = 6, side: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.side, self.classes = side, classes
        self.patches = nn.Conv2d(3, width, 2, stride=2)
        self.place = nn.Parameter(torch.randn(1, (side // 2) ** 2, width) / 50)
        self.time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes, width)
        self.blocks = nn.ModuleList(_DiTBlock(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 12)

    def forward(self, x0_BCHW: Tensor, noise_BCHW: Tensor, time_B: Tensor, label_B: Tensor) -> Tensor:
        """Return the loss."""
        t_BCHW = time_B[:, None, None, None]
        x_BTE = self.patches(x0_BCHW + t_BCHW * (noise_BCHW - x0_BCHW)).flatten(2).transpose(1, 2) + self.place
        c_BE = self.time(time_B[:, None]) + self.label(label_B)
        for block in self.blocks:
            x_BTE = block(x_BTE, c_BE)
        said = self.head(self.norm(x_BTE)).transpose(1, 2).reshape(len(x0_BCHW), 12, self.side // 2, self.side // 2)
        return F.mse_loss(F.pixel_shuffle(said, 2), noise_BCHW - x0_BCHW)


def gpt(depth: int | None, steps: int, backend: str | None) -> PlainTrainer:
    """Return a GPT's trainer, with nanoGPT's twelve layers where no depth is given."""
    torch.manual_seed(_SEED)
    model = GPT(depth or 12)

    def batch(random: torch.Generator) -> tuple[Tensor, Tensor]:
        text = torch.randint(model.words, (_BATCH, model.tokens + 1), generator=random)
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()

    return PlainTrainer(model, batch, model.tokens, steps, backend)


def dit(depth: int | None, steps: int, backend: str | None) -> PlainTrainer:
    """Return a DiT's trainer, with twelve layers where no depth is given."""
    torch.manual_seed(_SEED)
    model = DiT(depth or 12)

    def batch(random: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        shape = (_BATCH, 3, model.side, model.side)
        images, noise = (torch.randn(shape, generator=random) for _ in range(2))
        label = torch.randint(model.classes, (_BATCH,), generator=random)
        return images, noise, torch.rand(_BATCH, generator=random), label

    return PlainTrainer(model, batch, model.side, steps, backend)


PLAIN: dict[str, Callable[[int | None, int, str | None], PlainTrainer]] = {"gpt": gpt, "dit": dit}
