"""Custom operators: what is compiled in besides their formulas, and how they are declared."""

from __future__ import annotations

from tests.twins.thing import BODIES, BOTH, Kind, Position, Thing

_SQUASH = """
TABLE = {"scale": pick(2.0, 5.0)}


@torch.library.custom_op("twins::squash", mutates_args=())
def squash(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x)


@squash.register_fake
def _(x):
    return torch.empty_like(x)


def formula(ctx, grad):
    (y,) = ctx.saved_tensors
    return grad * y * (1 - y)


def keep(ctx, inputs, output):
    ctx.save_for_backward(output)
"""


def role(
    name: str,
    differs: str,
    setup: str,
    *,
    core: str = "return squash(x @ w)",
    fits: tuple[Position, ...] = BODIES,
    kind: Kind = "custom operator",
    silent: bool = False,
) -> Thing:
    return Thing(
        name=name,
        kind=kind,
        differs=differs,
        setup=setup,
        core=core,
        fits=fits,
        times=BOTH,
        parts=("user_code",),
        silent=silent,
    )


ROLES = (
    role(
        "setup of a context",
        "a number that setup_context keeps",
        _SQUASH
        + """

def keeping(ctx, inputs, output):
    ctx.scale = TABLE["scale"]


squash.register_autograd(lambda ctx, grad: grad * ctx.scale, setup_context=keeping)
""",
    ),
    role(
        "what a context saves",
        "which tensor setup_context saves",
        _SQUASH
        + """

def keeping(ctx, inputs, output):
    ctx.save_for_backward(TABLE["scale"] > 3 and inputs[0] or output)


def keeping(ctx, inputs, output):
    ctx.save_for_backward(inputs[0] if TABLE["scale"] > 3 else output)


squash.register_autograd(formula, setup_context=keeping)
""",
    ),
    role(
        "strides that a fake says",
        "the strides of an operator's result, of which its fake reads in a dict",
        """
TABLE = {"transposed": pick(False, True)}


@torch.library.custom_op("twins::squash", mutates_args=())
def squash(x: torch.Tensor) -> torch.Tensor:
    y = torch.sigmoid(x)
    return y.t().contiguous().t() if TABLE["transposed"] else y


@squash.register_fake
def _(x):
    return torch.empty_like(x.t().contiguous()).t() if TABLE["transposed"] else torch.empty_like(x)


squash.register_autograd(lambda ctx, grad: grad * 2)
""",
        core="return squash(x @ w) + 1",
        silent=False,
    ),
    role(
        "size that a fake says",
        "the size of an operator's result, of which its fake reads in a dict",
        """
TABLE = {"count": pick(2, 4)}


@torch.library.custom_op("twins::some", mutates_args=())
def some(x: torch.Tensor) -> torch.Tensor:
    return x[:, : TABLE["count"]].clone()


@some.register_fake
def _(x):
    return x.new_empty(x.shape[0], TABLE["count"])
""",
        core="return x @ w + some((x @ w).detach()).sum(1, keepdim=True)",
    ),
    role(
        "dtype that a fake says",
        "the dtype of an operator's result",
        """
TABLE = {"dtype": pick(torch.float32, torch.float64)}


@torch.library.custom_op("twins::some", mutates_args=())
def some(x: torch.Tensor) -> torch.Tensor:
    return x.to(TABLE["dtype"], copy=True)


@some.register_fake
def _(x):
    return torch.empty_like(x, dtype=TABLE["dtype"])
""",
        core="return x @ w + torch.exp(some((x @ w).detach())).float()",
    ),
    role(
        "rule for vmap",
        "a number that an operator's rule for vmap reads",
        _SQUASH
        + """

def rule(info, in_dims, x):
    return torch.sigmoid(x) * TABLE["scale"], in_dims[0]


squash.register_vmap(rule)
squash.register_autograd(formula, setup_context=keep)
""",
        core="return torch.vmap(lambda row: squash(row))(x @ w)",
        fits=("top", "submodule", "checkpoint"),
    ),
    role(
        "rule for autocast",
        "the dtype that an operator takes under autocast",
        _SQUASH
        + """

squash.register_autograd(formula, setup_context=keep)
torch.library.register_autocast("twins::squash", "cpu", pick(torch.bfloat16, torch.float16))
""",
        core="""
with torch.autocast("cpu", dtype=torch.bfloat16):
    y = squash(x * 3)
return y.float() @ w
""",
    ),
    role(
        "what an operator writes to",
        "whether an operator is declared to write to its argument",
        """
def fill(x: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(x * 2)


torch.library.custom_op("twins::fill", fill, mutates_args=pick((), ("out",))).register_fake(lambda x, out: None)
""",
        core="""
out = torch.zeros_like(x)
torch.ops.twins.fill(x.detach(), out)
return x @ w + out
""",
    ),
    role(
        "which argument is written to",
        "which of two arguments an operator writes to",
        """
def fill(x: torch.Tensor, out: torch.Tensor) -> None:
    pick(x, out).add_(1)


torch.library.custom_op("twins::fill", fill, mutates_args=pick(("x",), ("out",))).register_fake(lambda x, out: None)
""",
        core="""
a, b = x.detach() * 2, x.detach() * 3
torch.ops.twins.fill(a, b)
return x @ w + a * b
""",
    ),
    role(
        "operator changed after a use",
        "whether an operator's formula was registered anew",
        _SQUASH
        + """

squash.register_autograd(formula, setup_context=keep)
if pick(False, True):
    squash.register_autograd(lambda ctx, grad: grad * TABLE["scale"], setup_context=lambda ctx, inputs, output: None)
""",
    ),
    role(
        "a kernel that was exchanged",
        "what an operator's kernel computes, which is in no compiled code",
        _SQUASH
        + """

squash.register_autograd(formula, setup_context=keep)


@squash.register_kernel("cpu")
def _(x):
    return torch.sigmoid(x) * TABLE["scale"]
""",
    ),
    role(
        "operator that takes a list",
        "a number that an operator with a list of tensors has in a dict",
        """
TABLE = {"scale": pick(2.0, 5.0)}


@torch.library.custom_op("twins::total", mutates_args=())
def total(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(parts).sum(0)


@total.register_fake
def _(parts):
    return torch.empty_like(parts[0])


total.register_autograd(lambda ctx, grad: [grad * TABLE["scale"]] * 2)
""",
        core="return total([x @ w, x])",
    ),
    role(
        "operator that takes a number",
        "a number that an operator's formula makes of its argument",
        """
POWERS = {3: pick(2.0, 5.0)}


@torch.library.custom_op("twins::times", mutates_args=())
def times(x: torch.Tensor, by: int) -> torch.Tensor:
    return x * by


@times.register_fake
def _(x, by):
    return torch.empty_like(x)


def keep(ctx, inputs, output):
    ctx.by = POWERS[inputs[1]]


times.register_autograd(lambda ctx, grad: (grad * ctx.by, None), setup_context=keep)
""",
        core="return times(x @ w, 3)",
    ),
)
