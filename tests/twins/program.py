"""The text of a program: a thing's lines at a position. Written to be read, and to be run by hand."""

from __future__ import annotations

import textwrap
from string import Template

from tests.twins.thing import Pair, Phase, Position

_POSITIONS: dict[Position, str] = {
    "top": """
def body(x, w):
    return core(x, w)
""",
    "submodule": """
class Inner(torch.nn.Module):
    def forward(self, x, w):
        return core(x, w)


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, x, w):
        return self.inner(x + 1, w)


body = Outer()
""",
    "checkpoint": """
def body(x, w):
    from torch.utils.checkpoint import checkpoint

    return checkpoint(core, x, w, use_reentrant=False)
""",
    "function": """
class Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return core(x, w)

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w, x.t() @ grad


def body(x, w):
    return Through.apply(x, w)
""",
    "backward": """
class Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return core(grad, w), x.t() @ grad


def body(x, w):
    return Through.apply(x, w)
""",
    "cond": """
def body(x, w):
    return torch.cond(x.sum() > -100.0, lambda x, w: core(x, w), lambda x, w: x @ w, (x, w))
""",
    "while_loop": """
def body(x, w):
    from torch._higher_order_ops.while_loop import while_loop

    def again(n, x, w):
        return n < 2

    def once(n, x, w):
        return n + 1, core(x, w), w.clone()

    return while_loop(again, once, (torch.zeros((), dtype=torch.int64, device="cpu"), x.detach(), w.detach()))[1] + x
""",
    "region": """
@torch.compiler.nested_compile_region
def within(x, w):
    return core(x, w)


def body(x, w):
    return within(x, w)
""",
}

_PROGRAM = '''"""Twins at position ${position}, ${times}: they differ in ${differs}.

Usage: python FILE A|B. The last line is JSON: the same text with a compile cache as without.
"""

import random

import torch
from telling import PHASE, Account, inputs, loss_of, pick

MARK = torch.zeros(4096, dtype=torch.float32, device="cpu")
torch._dynamo.mark_static(MARK)
ROWS = ${rows}
torch.manual_seed(${number})
random.seed(${number})
assert PHASE
${setup}

def core(x, w):
${core}

${body}

@torch.compile(fullgraph=True${compiled})
def step(x, w, mark):
    # The number of this pair is in the graph, so that its artifacts are no other pair's.
    return body(x, w), mark.narrow(0, 0, ${number})


def run(x, w):
    return step(x, w, MARK)[0]


account = Account()
${drive}
account.close()
'''


def text_of(pair: Pair, phase: Phase) -> str:
    """Return the program of a twin; that of its twin is the same text, unless texts are what they differ in."""
    thing = pair.thing
    drive = Template(thing.drive).safe_substitute(around=thing.around)
    text = Template(_PROGRAM).substitute(
        position=pair.position,
        times=pair.times,
        differs=thing.differs,
        rows="(3,)" if pair.times == "static" else "(3, 5)",
        number=pair.number,
        setup=textwrap.dedent(thing.setup).strip("\n") + "\n",
        core=textwrap.indent(textwrap.dedent(thing.core).strip("\n"), "    "),
        body=_POSITIONS[pair.position].strip("\n") + "\n",
        compiled=(", dynamic=True" if pair.times == "dynamic" else ", dynamic=False" if "dynamic" not in thing.compiled else "")
        + (f", {thing.compiled}" if thing.compiled else ""),
        drive=textwrap.dedent(drive).strip("\n"),
    )
    if phase == "B":
        for old, new in thing.edits:
            if old not in text:
                raise ValueError(f"{thing.name}: its text has no {old!r} that could be changed")
            text = text.replace(old, new)
    return text
