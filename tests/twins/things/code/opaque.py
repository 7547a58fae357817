"""Functions that dynamo does not look into, at any depth, and the user's functions that run during a compile."""

from __future__ import annotations

from tests.twins.thing import ALL, BODIES, BOTH, Position, Thing

_OPAQUE = """
BEFORE


@torch.compiler.allow_in_graph
def opaque(x):
    return torch.tanh(x) * (NUMBER)
"""


def _opaque(name: str, before: str, number: str, *, fits: tuple[Position, ...] = ALL, text: str = _OPAQUE) -> Thing:
    return Thing(
        name=f"opaque: {name}",
        kind="opaque callable",
        differs=f"the number in a function that is allowed in graphs, which is read from: {name}",
        setup=text.replace("BEFORE", before).replace("NUMBER", number),
        core="return opaque(x @ w)",
        fits=fits,
        times=BOTH,
        parts=("user_code",),
    )


OPAQUE = (
    _opaque("a global", "SCALE = pick(3.0, 7.0)", "SCALE"),
    _opaque("a dict", "TABLE = {'scale': pick(3.0, 7.0)}", "TABLE['scale']"),
    _opaque(
        "a closure",
        "",
        "",
        text="""
def made(scale):
    @torch.compiler.allow_in_graph
    def opaque(x):
        return torch.tanh(x) * scale

    return opaque


opaque = made(pick(3.0, 7.0))
""",
    ),
    _opaque(
        "its own text",
        "",
        "",
        text="""
@torch.compiler.allow_in_graph
def three(x):
    return torch.tanh(x) * 3


@torch.compiler.allow_in_graph
def seven(x):
    return torch.tanh(x) * 7


opaque = pick(three, seven)
opaque.__name__ = opaque.__qualname__ = "opaque"
""",
    ),
    _opaque("an operator that it calls", "TABLE = {'call': pick(torch.sin, torch.cos)}", "TABLE['call'](x)"),
    _opaque(
        "a non-strict trace",
        "TABLE = {'scale': pick(3.0, 7.0)}",
        "",
        text="""
TABLE = {"scale": pick(3.0, 7.0)}


@torch._dynamo.nonstrict_trace
def opaque(x):
    return torch.tanh(x) * TABLE["scale"]
""",
    ),
    _opaque(
        "a wrapped function of fx",
        "",
        "",
        text="""
SCALE = pick(3.0, 7.0)


@torch._dynamo.allow_in_graph
@torch.fx.wrap
def opaque(x):
    return torch.tanh(x) * SCALE
""",
    ),
    _opaque(
        "a result that is assumed to be constant",
        "",
        "",
        fits=BODIES,
        text="""
TABLE = {"scale": pick(3.0, 7.0)}


@torch._dynamo.assume_constant_result
def scale():
    return TABLE["scale"]


def opaque(x):
    return torch.tanh(x) * scale()
""",
    ),
    _opaque(
        "a function in place of another",
        "",
        "",
        fits=BODIES,
        text="""
import colorsys

TABLE = {"scale": pick(3.0, 7.0)}


@torch.compiler.substitute_in_graph(colorsys.rgb_to_hls, skip_signature_check=True)
def substitute(*_):
    return TABLE["scale"]


def opaque(x):
    return torch.tanh(x) * colorsys.rgb_to_hls(1, 1, 1)
""",
    ),
    Thing(
        name="opaque: an autograd function allowed in graphs",
        kind="opaque callable",
        differs="a number in the backward of an autograd function that is allowed in graphs",
        setup="""
TABLE = {"scale": pick(3.0, 7.0)}


class Hidden(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * TABLE["scale"]


@torch.compiler.allow_in_graph
def opaque(x):
    return Hidden.apply(x)
""",
        core="return opaque(x @ w)",
        fits=BODIES,
        parts=("user_code",),
    ),
    Thing(
        name="autograd function: a number in its backward",
        kind="opaque callable",
        differs="a number that an autograd function's backward reads in a dict",
        setup="""
TABLE = {"scale": pick(3.0, 7.0)}


class Seen(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * TABLE["scale"]
""",
        core="return Seen.apply(x @ w)",
        fits=("top", "submodule", "checkpoint", "region"),
        times=BOTH,
    ),
    Thing(
        name="checkpoint: what is recomputed",
        kind="opaque callable",
        differs="which operators a selective checkpoint saves, of which its policy reads in a dict",
        setup="""
from functools import partial

from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

TABLE = {"save": pick(True, False)}


def policy(ctx, op, *args, **kwargs):
    return CheckpointPolicy.MUST_SAVE if TABLE["save"] else CheckpointPolicy.PREFER_RECOMPUTE
""",
        core="""
        context = partial(create_selective_checkpoint_contexts, policy)
        return checkpoint(lambda x: torch.sin(torch.sin(x @ w)), x, use_reentrant=False, context_fn=context)
        """,
        fits=("top", "submodule"),
        silent=True,
    ),
    Thing(
        name="hook on a tensor in the graph",
        kind="opaque callable",
        differs="a number that a hook on a tensor in the graph has",
        setup="""
TABLE = {'scale': pick(3.0, 7.0)}


def hook(grad):
    return grad * TABLE['scale']
""",
        core="""
        y = x @ w
        if y.requires_grad:
            y.register_hook(hook)
        return torch.tanh(y)
        """,
        options=("backend='inductor'",),
        drive="""
        with torch._dynamo.config.patch(compiled_autograd=True):
            for rows in ROWS:
                x, w = inputs(rows)
                with account.step(f"{rows} rows"):
                    y = run(x, w)
                    learn(y)
                    account.tell(y=y, dx=x.grad, dw=w.grad)
        """,
    ),
    Thing(
        name="score of flexible attention",
        kind="opaque callable",
        differs="a number in the score of flexible attention",
        setup="""
from torch.nn.attention.flex_attention import flex_attention

SCALE = {"by": pick(3.0, 7.0)}


def score(s, b, h, q, k):
    return s * SCALE["by"] + q - k
""",
        core="""
        q = (x @ w).detach().repeat(16, 4)[:16].reshape(1, 1, 16, 16)
        return flex_attention(q, q, q, score_mod=score)[0, 0, :1, :4] + x
        """,
        fits=("top",),
    ),
    Thing(
        name="map over rows",
        kind="opaque callable",
        differs="a number in the function that is mapped over rows",
        setup="""
from torch._higher_order_ops.map import map as over

SCALE = {'by': pick(3.0, 7.0)}
""",
        core="return over(lambda row, w: torch.sin(row @ w) * SCALE['by'], x, w)",
        fits=("top", "submodule"),
        times=BOTH,
    ),
    Thing(
        name="scan over rows",
        kind="opaque callable",
        differs="a number in the function of a scan",
        setup="""
from torch._higher_order_ops.scan import scan

SCALE = {'by': pick(3.0, 7.0)}
""",
        core="""
        begin = torch.zeros(4, device="cpu")
        return scan(lambda c, row: (c + row, c * row * SCALE["by"]), begin, x @ w, dim=0)[1]
        """,
        fits=("top", "submodule"),
    ),
)
