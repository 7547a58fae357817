"""Graphs of several kinds in one process: training around a graph break, inference, symbolic sizes, an optimizer step.

The last line says what was computed, and the state of torch's compiler afterwards.
"""

import json

import torch
from torch._dynamo.utils import counters


class Broken(torch.nn.Module):
    """A model of two graphs, because dynamo cannot trace the print between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(6, 12)
        self.second = torch.nn.Linear(12, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.nn.functional.gelu(self.first(x)).transpose(0, 1)
        torch._dynamo.graph_break()
        return self.second(h.transpose(0, 1).softmax(-1)) * x


def summed(x: torch.Tensor) -> torch.Tensor:
    if x.shape[0] > 10:  # a guard on a symbolic size: the other side is another graph
        return (x * 3).sum(0)
    return (x * 3).sum(0)


torch.manual_seed(0)
model = Broken()
compiled = torch.compile(model, dynamic=False)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
step = torch.compile(optimizer.step)
numbers = []
for _ in range(2):
    optimizer.zero_grad()
    loss = compiled(torch.randn(5, 6)).square().mean()
    loss.backward()
    step()
    numbers.append(loss.item())
with torch.no_grad():
    numbers.append(compiled(torch.randn(5, 6)).mean().item())
symbolic = torch.compile(summed, dynamic=True)
numbers += [symbolic(torch.randn(size, 3)).sum().item() for size in (12, 5, 20)]
clean = (
    torch._guards.TracingContext.try_get() is None
    and torch._C._len_torch_dispatch_stack() == 0
    and torch._guards.CompileContext.current_compile_id() is None
    and torch.is_grad_enabled()
    and not torch._functorch.config.bundled_autograd_cache
    and counters["aot_autograd"]["not_ok"] == counters["aot_autograd"]["autograd_cache_bypass"] == 0
)
print(json.dumps({"numbers": numbers, "clean": clean, "graphs": counters["stats"]["unique_graphs"]}))
