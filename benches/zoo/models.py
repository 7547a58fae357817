"""A zoo of small models and functions: what dynamo hands to a backend in real programs, one idea each.

Each entry makes a callable and its arguments, the same for the same seed. `BN` and the like name the tensor's axes:
B batch, C channels, H height, W width, N tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Animal:
    """One entry: `make()` returns a callable and its arguments."""

    name: str
    make: Callable[[], tuple[Callable[..., Any], tuple[Any, ...]]]
    train: bool
    """Whether the sum of its floating outputs is differentiated."""
    dynamic: tuple[bool | None, ...]
    """Values of `torch.compile(dynamic=...)` that make sense for it."""


ZOO: list[Animal] = []

Made = tuple[Callable[..., Any], tuple[Any, ...]]


def animal(
    *, train: bool = True, dynamic: tuple[bool | None, ...] = (False, True, None)
) -> Callable[[Callable[[], Made]], Callable[[], Made]]:
    """Enter the decorated maker into the zoo under its own name."""

    def enter(make: Callable[[], Made]) -> Callable[[], Made]:
        ZOO.append(Animal(name=make.__name__, make=make, train=train, dynamic=dynamic))
        return make

    return enter


def leaf(*shape: int, grad: bool = True) -> Tensor:
    """Return a tensor of standard normal numbers that is a leaf."""
    return torch.randn(*shape).requires_grad_(grad)


class Residual(nn.Module):
    """A residual multilayer perceptron on ...D."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ...D to ...D."""
        out: Tensor = x + self.down(F.gelu(self.up(self.norm(x))))
        return out


class Attention(nn.Module):
    """Multi-head self-attention on BND."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x_BND: Tensor) -> Tensor:  # noqa: N803 - shape suffix
        """Map BND to BND."""
        batch, tokens, width = x_BND.shape
        q, k, v = self.qkv(x_BND).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, tokens, width))
        return out


@animal()
def linear() -> Made:
    return nn.Linear(8, 8), (leaf(6, 8),)


@animal()
def mlp_residual() -> Made:
    return Residual(16), (leaf(6, 16),)


@animal()
def mlp_deep() -> Made:
    return nn.Sequential(*(Residual(16) for _ in range(3))), (leaf(6, 16),)


@animal()
def conv2d() -> Made:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 1)), (leaf(2, 3, 8, 8),)


@animal(dynamic=(False,))
def conv_transpose() -> Made:
    return nn.ConvTranspose2d(4, 2, 2, stride=2), (leaf(2, 4, 6, 6),)


@animal(dynamic=(False, True))
def pooling() -> Made:
    return (lambda x: F.avg_pool2d(F.max_pool2d(x, 2), 2)), (leaf(2, 3, 8, 8),)


@animal(dynamic=(False, None))
def interpolate() -> Made:
    return (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear")), (leaf(2, 3, 6, 6),)


@animal()
def attention() -> Made:
    return Attention(16, 2), (leaf(2, 6, 16),)


@animal(dynamic=(False,))
def attention_masked() -> Made:
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    return (lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m)), (leaf(2, 2, 6, 8), mask)


@animal(dynamic=(False, True))
def attention_causal() -> Made:
    return (lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True)), (leaf(2, 2, 6, 8),)


@animal()
def multihead_module() -> Made:
    module = nn.MultiheadAttention(16, 2, batch_first=True)
    return (lambda x: module(x, x, x, need_weights=False)[0]), (leaf(2, 6, 16),)


@animal()
def layer_norm() -> Made:
    return nn.LayerNorm(16), (leaf(6, 16),)


@animal()
def rms_norm() -> Made:
    return (lambda x: F.rms_norm(x, (16,))), (leaf(6, 16),)


@animal(dynamic=(False, True))
def group_norm() -> Made:
    return nn.GroupNorm(2, 8), (leaf(2, 8, 6, 6),)


@animal()
def batch_norm_train() -> Made:
    return nn.BatchNorm1d(8), (leaf(6, 8),)


@animal(dynamic=(False, True))
def batch_norm_eval() -> Made:
    return nn.BatchNorm2d(4).eval(), (leaf(2, 4, 6, 6),)


@animal()
def embedding() -> Made:
    module = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 8))
    return module, (torch.randint(0, 20, (4, 6)),)


@animal(dynamic=(False,))
def embedding_bag() -> Made:
    return nn.EmbeddingBag(20, 8, mode="mean"), (torch.randint(0, 20, (4, 6)),)


@animal(dynamic=(False, True))
def scatter() -> Made:
    index = torch.randint(0, 6, (6, 8))
    return (lambda x, i: torch.zeros_like(x).scatter_add(0, i, x)), (leaf(6, 8), index)


@animal(dynamic=(False, True))
def gather_index() -> Made:
    index = torch.randint(0, 6, (4,))
    return (lambda x, i: x[i] * x.gather(0, i[:, None].expand(-1, 8))), (leaf(6, 8), index)


@animal()
def dropout() -> Made:
    return (lambda x: F.dropout(x, 0.25, training=True)), (leaf(6, 8),)


@animal(dynamic=(False, True))
def random_ops() -> Made:
    return (lambda x: x + torch.randn_like(x) * torch.rand(x.shape[0], 1) + torch.bernoulli(x.detach().sigmoid())), (
        leaf(6, 8),
    )


@animal()
def views() -> Made:
    def function(x: Tensor) -> tuple[Tensor, Tensor]:
        y = x.view(2, -1, 4).transpose(0, 1).flatten(1)
        return y[:, ::2], y.unfold(1, 2, 2)

    return function, (leaf(6, 8),)


@animal(train=False)
def mutation() -> Made:
    def function(x: Tensor) -> Tensor:
        x.add_(1)
        x[0] = 0
        return x * 2

    return function, (leaf(6, 8, grad=False),)


@animal(dynamic=(False, True))
def mutated_view() -> Made:
    def function(x: Tensor) -> Tensor:
        y = x.clone()
        y.view(-1)[:4].mul_(3)
        y.t()[0].zero_()
        return y

    return function, (leaf(6, 8),)


class Counter(nn.Module):
    """Adds a running count that it keeps in a buffer."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        """Map BD to BD and move the count."""
        self.count.add_(x.detach().mean(0))
        return x + self.count


@animal()
def buffer_mutation() -> Made:
    return Counter(), (leaf(6, 8),)


@animal(dynamic=(False, True))
def alias_and_none() -> Made:
    return (lambda x: (x, None, x.view(-1), x * 2)), (leaf(6, 8),)


@animal(dynamic=(False,))
def same_input_twice() -> Made:
    x = leaf(6, 8)
    return (lambda a, b: a * b + a), (x, x)


@animal(train=False, dynamic=(False,))
def aliased_inputs() -> Made:
    base = torch.randn(48)

    def function(a: Tensor, b: Tensor) -> Tensor:
        a.mul_(2)
        return a + b

    return function, (base.view(6, 8), base.view(6, 8)[:, :].view(6, 8))


@animal(train=False)
def no_grad() -> Made:
    module = Residual(16)

    def function(x: Tensor) -> Tensor:
        with torch.no_grad():
            out: Tensor = module(x)
        return out

    return function, (leaf(6, 16, grad=False),)


@animal(dynamic=(False, True))
def grad_switched_inside() -> Made:
    def function(x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = x.abs().amax()
        return x / scale

    return function, (leaf(6, 8),)


@animal(dynamic=(False, True))
def autocast_inside() -> Made:
    module = nn.Linear(8, 8)

    def function(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out: Tensor = module(x).float()
        return out

    return function, (leaf(6, 8),)


@animal()
def bfloat16() -> Made:
    return nn.Linear(8, 8).bfloat16(), (torch.randn(6, 8, dtype=torch.bfloat16, requires_grad=True),)


@animal(train=False, dynamic=(False, True))
def integers() -> Made:
    return (lambda x: ((x * 3) % 7 // 2 ^ 5).clamp(0, 9).cumsum(0)), (torch.randint(0, 50, (6, 8)),)


@animal(train=False, dynamic=(False, True))
def booleans_and_where() -> Made:
    return (lambda x: torch.where((x > 0) & ~(x > 1), x, -x).nonzero_static(size=4)), (leaf(6, 8, grad=False),)


@animal(dynamic=(False,))
def complex_fft() -> Made:
    return (lambda x: torch.fft.rfft2(x).abs().square()), (leaf(6, 8),)


@animal(dynamic=(False,))
def complex_rotary() -> Made:
    frequencies = torch.polar(torch.ones(6, 4), torch.randn(6, 4))

    def function(x: Tensor, f: Tensor) -> Tensor:
        return torch.view_as_real(torch.view_as_complex(x.reshape(6, 4, 2)) * f).flatten(1)

    return function, (leaf(6, 8), frequencies)


@animal()
def einsum() -> Made:
    return (lambda a, b: torch.einsum("bij,bjk->bik", a, b)), (leaf(2, 3, 4), leaf(2, 4, 5))


@animal()
def softmax_cross_entropy() -> Made:
    return F.cross_entropy, (leaf(6, 8), torch.randint(0, 8, (6,)))


@animal(dynamic=(False, True))
def sort_topk() -> Made:
    return (lambda x: x.sort(-1).values + x.topk(8, -1).values), (leaf(6, 8),)


@animal(dynamic=(False, True))
def linalg() -> Made:
    return (lambda x: torch.linalg.vector_norm(x, dim=-1) + torch.linalg.solve(x @ x.T + torch.eye(6), x).sum(-1)), (
        leaf(6, 6),
    )


@animal(dynamic=(False,))
def recurrent_cell() -> Made:
    cell = nn.GRUCell(8, 8)

    def function(x: Tensor, h: Tensor) -> Tensor:
        for _ in range(3):
            h = cell(x, h)
        return h

    return function, (leaf(4, 8), leaf(4, 8))


@animal(dynamic=(False,))
def parametrized() -> Made:
    return nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), (leaf(6, 8),)


@animal(dynamic=(False, True))
def activation_checkpoint() -> Made:
    from torch.utils.checkpoint import checkpoint

    module = Residual(16)
    return (lambda x: checkpoint(module, x, use_reentrant=False)), (leaf(6, 16),)


class Straight(torch.autograd.Function):
    """Rounding with a straight-through gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Round."""
        ctx.save_for_backward(x)
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        """Pass the gradient where |x| < 1."""
        (x,) = ctx.saved_tensors
        out: Tensor = grad_outputs[0] * (x.abs() < 1)
        return out


@animal(dynamic=(False, True))
def custom_autograd_function() -> Made:
    return (lambda x: Straight.apply(x * 2) + x), (leaf(6, 8),)


@animal(train=False, dynamic=(False,))
def flex_attention() -> Made:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def window(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q - k).abs() <= 8

    mask = create_block_mask(window, None, None, 64, 64, device="cpu")
    q = torch.randn(1, 2, 64, 16)
    return (lambda q: flex_attention(q, q, q, block_mask=mask)), (q,)


@animal(dynamic=(False,))
def graph_break() -> Made:
    def function(x: Tensor) -> Tensor:
        y = x.sin()
        torch._dynamo.graph_break()
        return y.cos() * 2

    return function, (leaf(6, 8),)


@animal(train=False, dynamic=(False,))
def optimizer_step() -> Made:
    module = nn.Linear(8, 8)
    optimizer = torch.optim.AdamW(module.parameters(), lr=torch.tensor(1e-3))
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)

    def function() -> None:
        optimizer.step()

    return function, ()


@animal(train=False, dynamic=(False,))
def sgd_step() -> Made:
    module = nn.Linear(8, 8)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)

    def function() -> None:
        optimizer.step()

    return function, ()


@animal(dynamic=(False, True))
def vmap() -> Made:
    return torch.vmap(lambda row: row.softmax(0) * row.sum()), (leaf(6, 8),)


@animal(train=False, dynamic=(False,))
def grad_inside() -> Made:
    return torch.func.grad(lambda y: (y.sin() * y).sum()), (leaf(6, 8, grad=False),)


@animal()
def python_scalars() -> Made:
    return (lambda x, n, s, flag: (x * n + s).sum() if flag else x), (leaf(6, 8), 3, 0.5, True)


@animal()
def shape_arithmetic() -> Made:
    def function(x: Tensor) -> Tensor:
        height = (x.shape[0] + 1) // 2
        out: Tensor = F.pad(x, (0, 1, 0, 2 * height - x.shape[0])).view(2, height, -1).mean(0)
        return out * float(x.shape[0] ** 0.5)

    return function, (leaf(6, 8),)


@animal()
def list_and_dict() -> Made:
    def function(batch: dict[str, Tensor], extra: list[Tensor]) -> dict[str, Tensor]:
        return {"sum": batch["a"] + extra[0], "stack": torch.stack([batch["b"], *extra])}

    return function, ({"a": leaf(6, 8), "b": leaf(6, 8)}, [leaf(6, 8), leaf(6, 8)])


@animal(dynamic=(False,))
def channels_last() -> Made:
    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    module = nn.Conv2d(4, 4, 3)
    module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
    return module, (x,)


@animal(dynamic=(False, True))
def strided_input() -> Made:
    return (lambda x: x.relu() + 1), (torch.randn(8, 12)[:, ::2].T.detach().requires_grad_(),)


class Transformer(nn.Module):
    """Attention and perceptron, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(Attention(16, 2), Residual(16)) for _ in range(2)])

    def forward(self, x_BND: Tensor) -> Tensor:  # noqa: N803 - shape suffix
        """Map BND to BND."""
        for block in self.blocks:
            x_BND = block(x_BND)  # noqa: N806 - shape suffix
        return x_BND


@animal()
def transformer() -> Made:
    return Transformer(), (leaf(2, 6, 16),)


@animal(dynamic=(False, None))
def unet_like() -> Made:
    down, up = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ConvTranspose2d(8, 3, 2, stride=2)
    return (lambda x: x + up(F.silu(down(x)))), (leaf(2, 3, 8, 8),)


@animal(dynamic=(False,))
def cond_operator() -> Made:
    def function(x: Tensor) -> Tensor:
        out: Tensor = torch.cond(x.sum() > 0, lambda y: y.sin(), lambda y: y.cos(), (x,))
        return out

    return function, (leaf(6, 8),)
