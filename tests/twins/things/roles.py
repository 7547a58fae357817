"""Custom operators: what else of them than a formula is compiled in, and how they are declared and registered."""

from __future__ import annotations

from tests.twins.thing import BODIES, BOTH, Position, Thing

_PARTS = ("operators",)


def _role(
    name: str,
    differs: str,
    setup: str,
    *,
    core: str = "return squash(x @ w)",
    fits: tuple[Position, ...] = BODIES,
    kind: str = "custom operator",
    silent: bool = False,
) -> Thing:
    return Thing(
        name=name,
        kind=kind,  # type: ignore[arg-type]  # one of two
        differs=differs,
        setup=setup,
        core=core,
        fits=fits,
        times=BOTH,
        parts=_PARTS,
        silent=silent,
    )


_SQUASH = '''
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
'''
_LIBRARY = '''
LIBRARY = torch.library.Library("twins", "FRAGMENT")
TABLE = {"scale": pick(2.0, 5.0)}
'''
_DEFINED = f"""{_LIBRARY}
LIBRARY.define("squash(Tensor x) -> Tensor")
LIBRARY.impl("squash", torch.sigmoid, "CPU")
LIBRARY._register_fake("squash", torch.empty_like)
"""

ROLES = (
    _role("setup of a context", "a number that setup_context keeps", _SQUASH + """

def keeping(ctx, inputs, output):
    ctx.scale = TABLE["scale"]


squash.register_autograd(lambda ctx, grad: grad * ctx.scale, setup_context=keeping)
"""),
    _role("what a context saves", "which tensor setup_context saves", _SQUASH + """

def keeping(ctx, inputs, output):
    ctx.save_for_backward(TABLE["scale"] > 3 and inputs[0] or output)


def keeping(ctx, inputs, output):
    ctx.save_for_backward(inputs[0] if TABLE["scale"] > 3 else output)


squash.register_autograd(formula, setup_context=keeping)
"""),
    _role("strides that a fake says", "the strides of an operator's result, of which its fake reads in a dict", '''
TABLE = {"transposed": pick(False, True)}


@torch.library.custom_op("twins::squash", mutates_args=())
def squash(x: torch.Tensor) -> torch.Tensor:
    y = torch.sigmoid(x)
    return y.t().contiguous().t() if TABLE["transposed"] else y


@squash.register_fake
def _(x):
    return torch.empty_like(x.t().contiguous()).t() if TABLE["transposed"] else torch.empty_like(x)


squash.register_autograd(lambda ctx, grad: grad * 2)
''', core="return squash(x @ w) + 1", silent=False),
    _role("size that a fake says", "the size of an operator's result, of which its fake reads in a dict", '''
TABLE = {"count": pick(2, 4)}


@torch.library.custom_op("twins::some", mutates_args=())
def some(x: torch.Tensor) -> torch.Tensor:
    return x[:, : TABLE["count"]].clone()


@some.register_fake
def _(x):
    return x.new_empty(x.shape[0], TABLE["count"])
''', core="return x @ w + some((x @ w).detach()).sum(1, keepdim=True)"),
    _role("dtype that a fake says", "the dtype of an operator's result", '''
TABLE = {"dtype": pick(torch.float32, torch.float64)}


@torch.library.custom_op("twins::some", mutates_args=())
def some(x: torch.Tensor) -> torch.Tensor:
    return x.to(TABLE["dtype"], copy=True)


@some.register_fake
def _(x):
    return torch.empty_like(x, dtype=TABLE["dtype"])
''', core="return x @ w + torch.exp(some((x @ w).detach())).float()"),
    _role("rule for vmap", "a number that an operator's rule for vmap reads", _SQUASH + """

def rule(info, in_dims, x):
    return torch.sigmoid(x) * TABLE["scale"], in_dims[0]


squash.register_vmap(rule)
squash.register_autograd(formula, setup_context=keep)
""", core="return torch.vmap(lambda row: squash(row))(x @ w)", fits=("top", "submodule", "checkpoint")),
    _role("rule for autocast", "the dtype that an operator takes under autocast", _SQUASH + """

squash.register_autograd(formula, setup_context=keep)
torch.library.register_autocast("twins::squash", "cpu", pick(torch.bfloat16, torch.float16))
""", core='with torch.autocast("cpu", dtype=torch.bfloat16):\n    y = squash(x * 3)\nreturn y.float() @ w'),
    _role("what an operator writes to", "whether an operator is declared to write to its argument", '''
def fill(x: torch.Tensor, out: torch.Tensor) -> None:
    out.copy_(x * 2)


torch.library.custom_op("twins::fill", fill, mutates_args=pick((), ("out",))).register_fake(lambda x, out: None)
''', core="out = torch.zeros_like(x)\ntorch.ops.twins.fill(x.detach(), out)\nreturn x @ w + out"),
    _role("what a library's operator writes to", "whether a schema says that an argument is written to", f'''{_LIBRARY}
LIBRARY.define("fill(Tensor x, Tensor" + pick("", "(a!)") + " out) -> ()")
LIBRARY.impl("fill", lambda x, out: out.copy_(x * 2) and None, "CPU")
LIBRARY._register_fake("fill", lambda x, out: None)
''', core="out = torch.zeros_like(x)\ntorch.ops.twins.fill(x.detach(), out)\nreturn x @ w + out", kind="registration"),
    _role("which argument is written to", "which of two arguments an operator writes to", '''
def fill(x: torch.Tensor, out: torch.Tensor) -> None:
    pick(x, out).add_(1)


torch.library.custom_op("twins::fill", fill, mutates_args=pick(("x",), ("out",))).register_fake(lambda x, out: None)
''', core="a, b = x.detach() * 2, x.detach() * 3\ntorch.ops.twins.fill(a, b)\nreturn x @ w + a * b"),
    _role("tags of an operator", "whether an operator needs the strides as they are", f'''{_LIBRARY}
LIBRARY.define("layout(Tensor x) -> Tensor", tags=pick((torch.Tag.flexible_layout,), (torch.Tag.needs_exact_strides,)))
LIBRARY.impl("layout", lambda x: x * x.stride(0), "CPU")
LIBRARY._register_fake("layout", torch.empty_like)
''', core="return x @ w + torch.ops.twins.layout((x.detach() + 1).t()).t()", kind="registration", silent=True),
    _role("an operator's random tag", "whether an operator is tagged as random", f'''{_LIBRARY}
LIBRARY.define("draw(Tensor x) -> Tensor", tags=pick((), (torch.Tag.nondeterministic_seeded,)))
LIBRARY.impl("draw", lambda x: torch.rand_like(x), "CPU")
LIBRARY._register_fake("draw", torch.empty_like)
''', core="return x @ w + torch.ops.twins.draw(x.detach()) + torch.ops.twins.draw(x.detach())", kind="registration"),
    _role("default of an operator's argument", "the default of an argument in a schema", f'''{_LIBRARY}
LIBRARY.define("scaled(Tensor x, float by=" + pick("2.0", "5.0") + ") -> Tensor")
LIBRARY.impl("scaled", lambda x, by=1.0: x * by, "CPU")
LIBRARY._register_fake("scaled", lambda x, by=1.0: torch.empty_like(x))
''', core="return x @ w + torch.ops.twins.scaled(x.detach())", kind="registration"),
    _role("composite operator", "a number in an operator that is made of others", f'''{_LIBRARY}
LIBRARY.define("squash(Tensor x) -> Tensor")
LIBRARY.impl("squash", lambda x: torch.sigmoid(x) * TABLE["scale"], "CompositeImplicitAutograd")
''', core="return torch.ops.twins.squash(x @ w)", kind="registration"),
    _role("composite operator with a gradient of its own", "a number in the formula of a library's operator", f'''{_DEFINED}
torch.library.register_autograd("twins::squash", lambda ctx, grad: grad * TABLE["scale"], lib=LIBRARY)
''', core="return torch.ops.twins.squash(x @ w)", kind="registration"),
    _role("function of autograd behind a key", "a number in an autograd function that is registered for a key", f'''{_DEFINED}

class Squash(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.twins.squash(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * TABLE["scale"]


LIBRARY.impl("squash", Squash.apply, "Autograd")
''', core="return torch.ops.twins.squash(x @ w)", kind="registration"),
    _role("operator changed after a use", "whether an operator's formula was registered anew", _SQUASH + """

squash.register_autograd(formula, setup_context=keep)
if pick(False, True):
    squash.register_autograd(lambda ctx, grad: grad * TABLE["scale"], setup_context=lambda ctx, inputs, output: None)
"""),
    _role("a kernel that was exchanged", "what an operator's kernel computes, which is in no compiled code", _SQUASH + """

squash.register_autograd(formula, setup_context=keep)


@squash.register_kernel("cpu")
def _(x):
    return torch.sigmoid(x) * TABLE["scale"]
"""),
    _role("torch's operator, implemented anew", "what the CPU's kernel of tanh is, which is in no compiled code", '''
import warnings

warnings.simplefilter("ignore")
TABLE = {"scale": pick(2.0, 5.0)}
LIBRARY = torch.library.Library("aten", "IMPL")
LIBRARY.impl("sinc", lambda x: torch.sin(x) * TABLE["scale"], "CPU")
''', core="return torch.sinc(x.detach()) + x @ w", kind="registration"),
    _role("gradient of torch's operator, implemented anew", "the gradient of an operator of torch's", '''
import warnings

warnings.simplefilter("ignore")
TABLE = {"scale": pick(2.0, 5.0)}


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.sin(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * TABLE["scale"]


LIBRARY = torch.library.Library("aten", "IMPL")
LIBRARY.impl("tanh", Tanh.apply, "AutogradCPU")
''', core="return torch.tanh(x @ w)", kind="registration"),
    _role("operator that takes a list", "a number that an operator with a list of tensors has in a dict", '''
TABLE = {"scale": pick(2.0, 5.0)}


@torch.library.custom_op("twins::total", mutates_args=())
def total(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(parts).sum(0)


@total.register_fake
def _(parts):
    return torch.empty_like(parts[0])


total.register_autograd(lambda ctx, grad: [grad * TABLE["scale"]] * 2)
''', core="return total([x @ w, x])"),
    _role("operator that takes a number", "a number that an operator's formula makes of its argument", '''
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
''', core="return times(x @ w, 3)"),
)
