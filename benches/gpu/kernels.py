"""Whether the Triton kernels of the corpus compute what torch computes, on the device that is there.

    python -m benches.gpu.kernels --device cuda
    TRITON_INTERPRET=1 python -m benches.gpu.kernels --device cpu

Every kernel of the corpus is launched and compared; on a GPU one of them also with Triton's autotuner around it. Ends
with one JSON document: what is wrong, compiles and timed candidates as Triton's own listener and autotuner count them.
On a CPU, Triton's interpreter takes the place of the compiler, and nothing is counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Comparison = tuple[Tensor, Tensor, float]
"""What the kernel made, what it should be, and the largest difference, absolute, that rounding explains."""

Launch = Callable[..., None]


def comparisons(name: str, launch: Launch, device: str) -> list[Comparison]:
    """Launch one kernel of the corpus; return the outcome."""
    torch.manual_seed(0)
    return _CASES[name](launch, device)


def main() -> int:
    """Check all kernels; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benches.gpu.kernels", description=__doc__)
    parser.add_argument("--device", default="cuda")
    device: str = parser.parse_args().device
    import compile_client

    compile_client._activate()  # a checkout that is not installed has no entry point to do it
    from triton import knobs

    from benches.kernels.corpus import corpus

    compiled: list[bool] = []
    before = knobs.compilation.listener

    def listen(**about: Any) -> None:
        compiled.append(not about["cache_hit"])
        if before is not None:
            before(**about)

    knobs.compilation.listener = listen
    start = time.monotonic()
    wrong: list[str] = []
    specimens = corpus()
    for specimen in specimens:

        def launch(grid: tuple[int, ...], *given: Any, specimen: Any = specimen) -> None:
            specimen.function[grid](*given, **specimen.constants, **specimen.options)

        wrong += _complaints(specimen.name, comparisons(specimen.name, launch, device))
    timed = _autotuned(wrong, device) if device != "cpu" else 0
    document = {
        "kernels": [specimen.name for specimen in specimens],
        "wrong": wrong,
        "compiles": sum(compiled),
        "autotunes": timed,
        "seconds": round(time.monotonic() - start, 3),
    }
    print(json.dumps(document), flush=True)
    return 1 if wrong else 0


def _complaints(name: str, found: list[Comparison]) -> list[str]:
    complaints = []
    for number, (got, want, most) in enumerate(found):
        difference = float((got.double() - want.double()).abs().max())
        if not difference <= most:  # also where it is no number
            complaints.append(
                f"{name}, output {number}: {difference:.3g} away from torch, at most {most:g} is rounding"
            )
    return complaints


def _autotuned(wrong: list[str], device: str) -> int:
    """Check the product with Triton's autotuner around it; return how many candidates were timed."""
    import triton as untyped
    from triton.runtime.autotuner import Autotuner

    from benches.kernels.corpus import products

    triton: Any = untyped
    timed = 0
    bench: Any = Autotuner._bench

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal timed
        timed += 1
        return bench(*args, **kwargs)

    Autotuner._bench = counted  # type: ignore[method-assign]  # counting is the purpose
    sizes: Any = ({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}, {"BLOCK_M": 32, "BLOCK_N": 64, "BLOCK_K": 32})
    candidates = [triton.Config({**size, "GROUP": 8}, num_warps=4, num_stages=2) for size in sizes]
    tuned: Any = triton.autotune(candidates, key=["rows", "columns", "inner"])(products.matmul)

    def launch(_grid: tuple[int, ...], *given: Any) -> None:
        # Whichever candidate: the smallest blocks need the most programs, and the kernel masks the rest.
        tuned[lambda meta: (triton.cdiv(given[3], meta["BLOCK_M"]) * triton.cdiv(given[4], meta["BLOCK_N"]),)](*given)

    wrong += _complaints("matmul, autotuned", comparisons("matmul", launch, device))
    return timed


def _over(count: int, block: int) -> int:
    return -(-count // block)


def _vector_add(launch: Launch, device: str) -> list[Comparison]:
    x, y = torch.randn(2, 10_000, device=device)
    out = torch.empty_like(x)
    launch((_over(10_000, 1024),), x, y, out, 10_000)
    return [(out, x + y, 0.0)]


def _seeded_dropout(launch: Launch, device: str) -> list[Comparison]:
    x = torch.rand(50_000, device=device) + 0.5
    first, second = torch.empty_like(x), torch.empty_like(x)
    for out in (first, second):
        launch((_over(50_000, 1024),), x, out, 50_000, 0.3, 7)
    kept = first != 0
    share = kept.double().mean()
    return [
        (first, torch.where(kept, x / 0.7, 0.0), 1e-6),
        (second, first, 0.0),
        (share, torch.full_like(share, 0.7), 0.02),
    ]


def _gelu_backward(launch: Launch, device: str) -> list[Comparison]:
    x, grad = torch.randn(2, 5_000, device=device).bfloat16()
    out = torch.empty_like(x)
    launch((_over(5_000, 512),), x, grad, out, 5_000)
    leaf = x.float().requires_grad_()
    (want,) = torch.autograd.grad(functional.gelu(leaf), leaf, grad.float())
    return [(out, want, 0.04)]


def _softmax(launch: Launch, device: str) -> list[Comparison]:
    x = torch.randn(64, 1000, device=device).half()
    out = torch.empty_like(x)
    launch((64,), x, out, 1000, 1000)
    return [(out, x.float().softmax(1), 1e-3)]


def _layer_norm(launch: Launch, device: str) -> list[Comparison]:
    x, weight, bias = torch.randn(64, 1000, device=device).half(), *torch.randn(2, 1000, device=device)
    out, mean, rstd = torch.empty_like(x), *torch.empty(2, 64, device=device)
    launch((64,), x, weight, bias, out, mean, rstd, 1000, 1000, 1e-5)
    deviation = (x.float().var(1, correction=0) + 1e-5).rsqrt()
    want = functional.layer_norm(x.float(), (1000,), weight, bias, 1e-5)
    return [(out, want, 0.02), (mean, x.float().mean(1), 1e-4), (rstd, deviation, 1e-4)]


def _layer_norm_backward(launch: Launch, device: str) -> list[Comparison]:
    grad, x = torch.randn(2, 64, 1000, device=device).half()
    weight = torch.randn(1000, device=device)
    mean, rstd = x.float().mean(1), (x.float().var(1, correction=0) + 1e-5).rsqrt()
    dx, (dw, db) = torch.empty_like(x), torch.zeros(2, 1000, device=device)
    launch((64,), grad, x, weight, mean, rstd, dx, dw, db, 1000, 1000)
    leaves = x.float().requires_grad_(), weight.clone().requires_grad_(), torch.zeros_like(weight).requires_grad_()
    out = functional.layer_norm(leaves[0], (1000,), leaves[1], leaves[2], 1e-5)
    wants = torch.autograd.grad(out, leaves, grad.float())
    return [(dx, wants[0], 0.02), (dw, wants[1], 1e-3), (db, wants[2], 1e-3)]


def _group_norm(launch: Launch, device: str) -> list[Comparison]:
    x, (weight, bias) = torch.randn(2, 32, 16, 16, device=device).bfloat16(), torch.randn(2, 32, device=device)
    out = torch.empty_like(x)
    launch((2 * 8,), x, weight, bias, out, 8, 4, 256, 1e-5)
    return [(out, functional.group_norm(x.float(), 8, weight, bias, 1e-5), 0.1)]


def _cross_entropy(launch: Launch, device: str) -> list[Comparison]:
    logits, target = torch.randn(32, 5000, device=device).bfloat16(), torch.randint(0, 5000, (32,), device=device)
    loss, grad = torch.empty(32, device=device), torch.empty_like(logits)
    launch((32,), logits, target, loss, grad, 5000, 5000)
    want = logits.float().softmax(1) - functional.one_hot(target, 5000)
    return [(loss, functional.cross_entropy(logits.float(), target, reduction="none"), 1e-4), (grad, want, 4e-3)]


def _matmul(launch: Launch, device: str) -> list[Comparison]:
    a, b = torch.randn(200, 130, device=device).half(), torch.randn(130, 150, device=device).half()
    out = torch.empty(200, 150, device=device, dtype=torch.float16)
    launch((_over(200, 64) * _over(150, 64),), a, b, out, 200, 150, 130)
    return [(out, a.double() @ b.double(), 0.05)]


def _quantised_matmul(launch: Launch, device: str) -> list[Comparison]:
    a, b = (torch.randint(-128, 128, size, device=device, dtype=torch.int8) for size in ((100, 96), (96, 80)))
    scale, out = torch.rand(80, device=device), torch.empty(100, 80, device=device)
    launch((_over(100, 64), _over(80, 64)), a, b, scale, out, 100, 80, 96)
    return [(out, (a.double() @ b.double()) * scale.double(), 0.1)]


def _attention(launch: Launch, device: str) -> list[Comparison]:
    q, k, v = torch.randn(3, 4, 100, 64, device=device).half()
    out, log = torch.empty_like(q), torch.empty(4, 100, device=device)
    launch((_over(100, 64), 4), q, k, v, out, log, 100, 0.125)
    later = torch.ones(100, 100, device=device, dtype=torch.bool).triu(1)
    score = (q.double() @ k.double().mT * 0.125).masked_fill(later, float("-inf"))
    return [(out, score.softmax(2) @ v.double(), 0.01), (log, score.logsumexp(2), 2e-3)]


def _attention_backward(launch: Launch, device: str) -> list[Comparison]:
    q, k, v, grad = torch.randn(4, 4, 100, 64, device=device).half()
    leaves = [tensor.double().requires_grad_() for tensor in (q, k, v)]
    score = leaves[0] @ leaves[1].mT * 0.125
    out = score.softmax(2) @ leaves[2]
    wants = torch.autograd.grad(out, leaves, grad.double())
    log, delta = score.logsumexp(2).detach().float(), (out * grad.double()).sum(2).detach().float()
    dq, dk, dv = torch.zeros(4, 100, 64, device=device), torch.empty_like(k), torch.empty_like(v)
    launch((_over(100, 64), 4), q, k, v, grad, log, delta, dq, dk, dv, 100, 0.125)
    return [(got, want, 0.02) for got, want in zip((dq, dk, dv), wants, strict=True)]


def _decayed_scan(launch: Launch, device: str) -> list[Comparison]:
    x, decay = torch.randn(8, 700, device=device), torch.rand(8, 700, device=device) * 0.5 + 0.5
    out = torch.empty_like(x)
    launch((8,), x, decay, out, 700)
    want, state = torch.empty_like(x).double(), torch.zeros(8, device=device).double()
    for at in range(700):
        state = state * decay[:, at].double() + x[:, at].double()
        want[:, at] = state
    return [(out, want, 1e-4)]


def _histogram(launch: Launch, device: str) -> list[Comparison]:
    x = torch.randint(0, 256, (5_000,), device=device, dtype=torch.int32)
    counts = torch.zeros(256, device=device, dtype=torch.int32)
    launch((_over(5_000, 1024),), x, counts, 5_000)
    return [(counts, torch.bincount(x.long(), minlength=256), 0.0)]


_CASES: dict[str, Callable[[Launch, str], list[Comparison]]] = {
    "vector_add": _vector_add,
    "seeded_dropout": _seeded_dropout,
    "gelu_backward": _gelu_backward,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "layer_norm_backward": _layer_norm_backward,
    "group_norm": _group_norm,
    "cross_entropy": _cross_entropy,
    "matmul": _matmul,
    "quantised_matmul": _quantised_matmul,
    "attention": _attention,
    "attention_backward": _attention_backward,
    "decayed_scan": _decayed_scan,
    "histogram": _histogram,
}


if __name__ == "__main__":
    sys.exit(main())
