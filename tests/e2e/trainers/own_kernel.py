"""A graph with a Triton kernel of the trainer's own; prints its numbers, and what Triton and inductor did for them.

Usage: own_kernel.py SIZE WHAT [pool]. With `pool`, torch compiles kernels in processes of its own. It runs where Triton
has a target `cpu`: see tests/kernels/host_backend.
"""

import json
import os
import sys
from pathlib import Path

import torch
import triton
import triton.language as tl
from torch._inductor.runtime.triton_heuristics import CachingAutotuner

timed = []
bench = CachingAutotuner.bench


def counted(tuner, *arguments, **options):
    timed.append(tuner)
    return bench(tuner, *arguments, **options)


CachingAutotuner.bench = counted


@triton.jit
def scaled_sum(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < n
    x = tl.load(x_ptr + offsets, mask=inside)
    y = tl.load(y_ptr + offsets, mask=inside)
    tl.store(out_ptr + offsets, x * 3.0 + y, mask=inside)


@triton.jit
def swish(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < n
    x = tl.load(x_ptr + offsets, mask=inside)
    tl.store(out_ptr + offsets, x * tl.sigmoid(x), mask=inside)  # `sigmoid` is a function of Triton's library


@triton.jit
def swish_backward(x_ptr, grad_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < n
    x = tl.load(x_ptr + offsets, mask=inside)
    grad = tl.load(grad_ptr + offsets, mask=inside)
    rate = 1.0 / (1.0 + tl.exp(-x))
    tl.store(out_ptr + offsets, grad * rate * (1.0 + x * (1.0 - rate)), mask=inside)


@triton.autotune([triton.Config({"BLOCK": 32}), triton.Config({"BLOCK": 128})], key=["n"])
@triton.jit
def tuned_square(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < n
    x = tl.load(x_ptr + offsets, mask=inside)
    tl.store(out_ptr + offsets, x * x, mask=inside)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        out = torch.empty_like(x)
        swish[(triton.cdiv(x.numel(), 64),)](x, out, x.numel(), BLOCK=64)
        ctx.save_for_backward(x)
        return out

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        out = torch.empty_like(x)
        swish_backward[(triton.cdiv(x.numel(), 64),)](x, grad.contiguous(), out, x.numel(), BLOCK=64)
        return out


@torch.library.triton_op("mine::scaled_sum", mutates_args={})
def scaled_sum_operator(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    torch.library.wrap_triton(scaled_sum)[(triton.cdiv(x.numel(), 64),)](x, y, out, x.numel(), BLOCK=64)
    return out * 1.0


def plain(x, y):
    out = torch.empty_like(x)
    scaled_sum[(triton.cdiv(x.numel(), 64),)](x.sin(), y, out, x.numel(), BLOCK=64)
    return out.cos() * 2


def operator(x, y):
    return scaled_sum_operator(x.sin(), y).cos() * 2


def backward(x, y):
    return Swish.apply(x * y).sum()


def tuned(x, y):
    out = torch.empty_like(x)
    tuned_square[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](x + y, out, x.numel())
    return out - 1


size, what = int(sys.argv[1]), sys.argv[2]
if "pool" in sys.argv[3:]:
    from torch._inductor.async_compile import AsyncCompile

    AsyncCompile.wait_pool_ready()
torch.manual_seed(0)
x, y = torch.randn(size, requires_grad=what == "backward"), torch.randn(size)
expected = {
    "plain": lambda: (x.sin() * 3 + y).cos() * 2,
    "operator": lambda: (x.sin() * 3 + y).cos() * 2,
    "backward": lambda: torch.nn.functional.silu(x * y).sum(),
    "tuned": lambda: (x + y) ** 2 - 1,
}[what]()

result = torch.compile(globals()[what], fullgraph=True)(x, y)
if what == "backward":
    result.backward()
    found = x.grad.clone()
    (wanted,) = torch.autograd.grad(expected, x)
    numbers = [result.item(), *found.tolist()]
    off = (found - wanted).abs().max().item()
else:
    numbers = result.tolist()
    off = (result - expected).abs().max().item()

counters = torch._dynamo.utils.counters["inductor"]
log = Path(os.environ["HOST_KERNELS_LOG"])
print(
    json.dumps(
        {
            "numbers": [number.hex() for number in numbers],
            "off": off,
            "timed": len(timed),
            "kernels": log.read_text().splitlines() if log.exists() else [],
            "saved": counters["triton_bundler_save_kernel"],
            "restored": counters["triton_bundler_read_and_emit_kernel"],
        }
    )
)
