"""One entry of the corpus in a process of its own: trained and run at both sizes.

    python -m benches.corpus.process NAME

Its last line is a JSON document: a digest of each loss, gradient, parameter and output, what became of the graphs where
the client is on, and what torch itself cached nowhere, with its reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from benches.corpus.registry import Entry, Program, whole_corpus
from benches.harness.compile_counts import start_counting

_TORCH_CACHE = "torch._functorch._aot_autograd.autograd_cache"


class _Heard(logging.Handler):
    """Keeps what the client says of graphs that are compiled here, and torch of those that it does not cache."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled_here: list[dict[str, str]] = []
        self.uncached: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "daemon_event", "") == "compiled_here":
            reason = getattr(record, "daemon_reason", "")
            self.compiled_here.append({"reason": reason, "why": record.getMessage().partition("): ")[2]})
        elif str(record.msg).startswith("Bypassing autograd cache"):
            self.uncached.append(" ".join(record.getMessage().partition(": ")[2].split())[:300])


def main() -> int:
    """Run one entry."""
    (name,) = sys.argv[1:]
    chosen = whole_corpus()[name]
    heard = _Heard()
    logging.getLogger("compile_client").addHandler(heard)
    said_by_torch = logging.getLogger(_TORCH_CACHE)
    said_by_torch.addHandler(heard)
    said_by_torch.setLevel(logging.INFO)  # below that torch makes a long text of each key
    said_by_torch.propagate = False
    counts = start_counting()
    begun = time.monotonic()
    torch.manual_seed(0)
    program = chosen.make()
    made_s = time.monotonic() - begun
    digests = run(chosen, program)
    client = _client()
    document = {
        "digests": digests,
        "made_s": round(made_s, 2),
        "seconds": round(time.monotonic() - begun - made_s, 2),
        "graphs": counts.graphs or 0,
        "cpp_builds": counts.cpp_builds or 0,
        "client": client,
        "compiled_here": heard.compiled_here,
        "uncached": heard.uncached,
    }
    print(json.dumps(document), flush=True)
    return 0


def run(entry: Entry, program: Program, *, backend: Any = None) -> dict[str, str]:
    """Train and run a program as its entry says; return a digest of each loss, gradient, parameter and output.

    `backend` takes dynamo's graphs instead of torch's own compiler.
    """
    if entry.bf16_weights:
        program.model.to(torch.bfloat16)
    digests = _train(entry, program, backend) if entry.train else {}
    if entry.infer:
        digests |= _infer(entry, program, backend)
    return digests


def _train(entry: Entry, program: Program, backend: Any) -> dict[str, str]:
    model = program.model.train()
    if entry.checkpoint:
        _checkpoint(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step: Any = optimizer.step
    if entry.compiled_optimizer:
        step = torch.compile(step, dynamic=entry.dynamic, **_ways(None, backend))
    averaged = _averaged(model) if entry.ema else None
    compiled = _compiled(entry, program, backend)
    digests: dict[str, str] = {}
    for size in entry.sizes:
        losses = []
        for _ in range(entry.accumulate):
            with _autocast(entry):
                loss = _loss(program, compiled(**program.batch(size)))
            (loss / entry.accumulate).backward()
            losses.append(loss.detach())
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        digests |= {f"train {size}: loss": _digest(losses), f"train {size}: gradients": _digest(grads.values())}
        step()
        optimizer.zero_grad()
        if averaged is not None:
            averaged.update_parameters(model)
        digests[f"train {size}: parameters"] = _digest(model.state_dict().values())
    if averaged is not None:
        digests["averaged"] = _digest(averaged.state_dict().values())
    return digests


def _infer(entry: Entry, program: Program, backend: Any) -> dict[str, str]:
    program.model.eval()
    compiled = _compiled(entry, program, backend)
    digests = {}
    for size in entry.sizes:
        with torch.no_grad(), _autocast(entry):
            found = list(_tensors(compiled(**program.batch(size))))
        assert found, "the model returns no tensor"
        digests[f"infer {size}: outputs"] = _digest(found)
    return digests


def _compiled(entry: Entry, program: Program, backend: Any) -> Any:
    ways = _ways(entry.mode, backend)
    if not entry.regional:
        return torch.compile(program.model, dynamic=entry.dynamic, **ways)
    assert program.blocks, f"{entry.model} names no blocks"
    for block in program.blocks:
        block.compile(dynamic=entry.dynamic, **ways)
    return program.model


def _ways(mode: str | None, backend: Any) -> dict[str, Any]:
    return {"mode": mode} if backend is None else {"backend": backend}


def _checkpoint(model: Any) -> None:
    """Switch the model's own gradient checkpointing on, by whichever name its package has for it."""
    if hasattr(model, "gradient_checkpointing_enable"):
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.enable_gradient_checkpointing()


def _averaged(model: torch.nn.Module) -> torch.optim.swa_utils.AveragedModel:
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    return torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def _autocast(entry: Entry) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16) if entry.autocast else contextlib.nullcontext()


def _loss(program: Program, output: Any) -> torch.Tensor:
    if program.loss is not None:
        return program.loss(output)
    loss = getattr(output, "loss", None)
    if loss is not None:
        assert isinstance(loss, torch.Tensor)
        return loss
    return next(_tensors(output)).float().square().mean()


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of what a model returns; caches of keys and values are objects, and left out."""
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from _tensors(value)


def _digest(tensors: Any) -> str:
    """Return the SHA-256 of tensors, bit for bit, with their types and shapes."""
    whole = hashlib.sha256()
    for tensor in tensors:
        plain = tensor.detach().contiguous()
        whole.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
        whole.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def _client() -> dict[str, Any]:
    """Return the client's counters; nothing where it is not on."""
    if "compile_client" not in sys.modules:
        return {}
    import compile_client

    return dict(compile_client.counters())


if __name__ == "__main__":
    sys.exit(main())
