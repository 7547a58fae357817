"""A small model, trained, whose parts are chosen by the environment: each is something that dynamo makes a constant of.

The arguments are sizes of batches, each a step. The last line has the losses, how many functions dynamo traced, whether
inductor's compiler was there after each step, and whether the losses are those without `torch.compile`.
"""

import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo import symbolic_convert
from torch.nn import functional

traced = 0
compiler: list[bool] = []


_translator: Any = symbolic_convert.InstructionTranslator
_init = _translator.__init__


def _counting(self: Any, *args: Any, **kwargs: Any) -> None:
    global traced  # noqa: PLW0603 - a count, whatever the client says
    traced += 1
    _init(self, *args, **kwargs)


_translator.__init__ = _counting

TRACED_SCALE = float(os.environ.get("TRACED_SCALE", "0.5"))
ACTIVATION = functional.gelu if os.environ.get("TRACED_ACTIVATION") else functional.silu


class Config:
    gain = float(os.environ.get("TRACED_GAIN", "1.5"))


def shifted(x: torch.Tensor, by: float = float(os.environ.get("TRACED_SHIFT", "0.25"))) -> torch.Tensor:
    return x + by


def divider(eps: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def divided(x: torch.Tensor) -> torch.Tensor:
        return x / (x.abs() + eps)

    return divided


divide = divider(float(os.environ.get("TRACED_EPS", "1.0")))


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.linear = torch.nn.Linear(12, 12)
        self.activation = torch.tanh if os.environ.get("TRACED_ATTRIBUTE") else torch.sigmoid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(ACTIVATION(self.linear(x)) * TRACED_SCALE)
        return divide(shifted(x) * self.config.gain).sum()


def losses(*, compiled: bool) -> list[float]:
    torch.manual_seed(0)
    net = Net()
    if os.environ.get("TRACED_HOOK"):
        net.linear.register_forward_hook(lambda _module, _inputs, output: output * 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    step = torch.compile(net) if compiled else net
    found = []
    for rows in map(int, sys.argv[1:]):
        optimizer.zero_grad()
        loss = step(torch.linspace(-1, 1, rows * 12).reshape(rows, 12))
        loss.backward()
        optimizer.step()
        found.append(loss.item())
        run = type(sys.modules.get("torch._inductor.compile_fx")) is types.ModuleType
        compiler.append(run or "torch._inductor.lowering" in sys.modules)
    return found


ours, eager = losses(compiled=True), losses(compiled=False)
close = torch.allclose(torch.tensor(ours), torch.tensor(eager), rtol=1e-5)
print(json.dumps({"losses": ours, "close": close, "traced": traced, "compiler": compiler[: len(ours)]}))
