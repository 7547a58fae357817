"""Writes the text of a program, a thing's lines at a position, so that a person can read it and run it by hand."""

from __future__ import annotations

import textwrap
from string import Template

from tests.twins.thing import Phase, Position, Twins

_POSITIONS: dict[Position, str] = {
    "top": """
def body(x, w${more}):
    return core(x, w${more})
""",
    "submodule": """
class Inner(torch.nn.Module):
    def forward(self, x, w${more}):
        return core(x, w${more})


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()

    def forward(self, x, w${more}):
        return self.inner(x + 1, w${more})


body = Outer()
""",
    "checkpoint": """
def body(x, w${more}):
    from torch.utils.checkpoint import checkpoint

    return checkpoint(core, x, w${more}, use_reentrant=False)
""",
    "function": """
class Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w${more}):
        ctx.save_for_backward(x, w)
        return core(x, w${more})

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return grad @ w, x.t() @ grad${nones}


def body(x, w${more}):
    return Through.apply(x, w${more})
""",
    "backward": """
class Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w${more}):
        ctx.save_for_backward(x, w)
        ctx.more = (${names})
        return x @ w

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        return core(grad, w, *ctx.more), x.t() @ grad${nones}


def body(x, w${more}):
    return Through.apply(x, w${more})
""",
    "cond": """
def body(x, w${more}):
    return torch.cond(x.sum() > -100.0, lambda x, w: core(x, w${more}), lambda x, w: x @ w, (x, w))
""",
    "while_loop": """
def body(x, w${more}):
    from torch._higher_order_ops.while_loop import while_loop

    def again(n, x, w):
        return n < 2

    def once(n, x, w):
        return n + 1, core(x, w${more}), w.clone()

    return while_loop(again, once, (torch.zeros((), dtype=torch.int64, device="cpu"), x.detach(), w.detach()))[1] + x
""",
    "region": """
@torch.compiler.nested_compile_region
def within(x, w${more}):
    return core(x, w${more})


def body(x, w${more}):
    return within(x, w${more})
""",
}

_HEAD = '''"""Twins that differ in ${differs}.

Usage: python FILE A|B. The last line is JSON: the same text with a compile cache as without.
"""

import random

import torch
from telling import PHASE, Account, inputs, learn, pick

MARK = torch.zeros(65536, dtype=torch.float32, device="cpu")
torch._dynamo.mark_static(MARK)
account = Account()
assert PHASE
${setup}

def core(x, w${more}):
${core}


def drive(run, body, ROWS):
${drive}


'''
_PLACE = """def at_${name}():
${body}

    @torch.compile(${options})
    def step(x, w, mark${more}):
        # The number of this place is in the graph, so that its artifacts are those of no other.
        return body(x, w${more}), mark.narrow(0, 0, ${number})

    def run(x, w${more}):
        return step(x, w, MARK${more})[0]

    return run, body


"""
_DRIVEN = """with account.place("${place}", ${number}):
    drive(*at_${name}(), ${rows})
"""
_FOOT = "account.close()\n"


def text_of(twins: Twins, phase: Phase) -> str:
    """Return a twin's program; its twin's text is the same, unless the twins differ in their texts."""
    thing = twins.thing
    more = "".join(f", {name}" for name in thing.more)
    names = "".join(f"{name}, " for name in thing.more)
    nones = ", None" * len(thing.more)
    parts = [
        Template(_HEAD).substitute(
            differs=thing.differs,
            setup=_block(thing.setup) + "\n",
            more=more,
            core=textwrap.indent(_block(thing.core), "    "),
            drive=textwrap.indent(_block(thing.drive.replace("AROUND", thing.around)), "    "),
        )
    ]
    driven = []
    for pair in twins.pairs:
        dynamic = [] if pair.times == "automatic" else [f"dynamic={pair.times == 'dynamic'}"]
        known = {
            "name": f"{pair.position}_{pair.times}",
            "place": pair.place,
            "number": pair.number,
            "more": more,
            "rows": "(3,)" if pair.times == "static" else "(3, 5)",
            "options": ", ".join([f"fullgraph={thing.fullgraph}", *dynamic, *thing.options]),
        }
        body = Template(_POSITIONS[pair.position]).substitute(more=more, names=names, nones=nones)
        parts.append(Template(_PLACE).substitute(known, body=textwrap.indent(_block(body), "    ")))
        driven.append(Template(_DRIVEN).substitute(known))
    text = "".join((*parts, *driven, _FOOT))
    if phase == "B":
        for old, new in ((old.strip("\n"), new.strip("\n")) for old, new in thing.edits):
            if old not in text:
                raise ValueError(f"{thing.name}: its text has no {old!r} that could be changed")
            text = text.replace(old, new)
    return text


def _block(text: str) -> str:
    return textwrap.dedent(text).strip("\n")
