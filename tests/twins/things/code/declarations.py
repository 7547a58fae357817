"""Operators of `torch.library`: schemas, tags, and implementations for a key."""

from __future__ import annotations

from tests.twins.things.code.roles import role

_LIBRARY = """
LIBRARY = torch.library.Library("twins", "FRAGMENT")
TABLE = {"scale": pick(2.0, 5.0)}
"""


_DEFINED = f"""{_LIBRARY}
LIBRARY.define("squash(Tensor x) -> Tensor")
LIBRARY.impl("squash", torch.sigmoid, "CPU")
LIBRARY._register_fake("squash", torch.empty_like)
"""


DECLARATIONS = (
    role(
        "what a library's operator writes to",
        "whether a schema says that an argument is written to",
        f"""{_LIBRARY}
LIBRARY.define("fill(Tensor x, Tensor" + pick("", "(a!)") + " out) -> ()")
LIBRARY.impl("fill", lambda x, out: out.copy_(x * 2) and None, "CPU")
LIBRARY._register_fake("fill", lambda x, out: None)
""",
        core="""
out = torch.zeros_like(x)
torch.ops.twins.fill(x.detach(), out)
return x @ w + out
""",
        kind="registration",
    ),
    role(
        "tags of an operator",
        "whether an operator needs the strides as they are",
        f"""{_LIBRARY}
LIBRARY.define("layout(Tensor x) -> Tensor", tags=pick((torch.Tag.flexible_layout,), (torch.Tag.needs_exact_strides,)))
LIBRARY.impl("layout", lambda x: x * x.stride(0), "CPU")
LIBRARY._register_fake("layout", torch.empty_like)
""",
        core="return x @ w + torch.ops.twins.layout((x.detach() + 1).t()).t()",
        kind="registration",
        silent=True,
    ),
    role(
        "an operator's random tag",
        "whether an operator is tagged as random",
        f"""{_LIBRARY}
LIBRARY.define("draw(Tensor x) -> Tensor", tags=pick((), (torch.Tag.nondeterministic_seeded,)))
LIBRARY.impl("draw", lambda x: torch.rand_like(x), "CPU")
LIBRARY._register_fake("draw", torch.empty_like)
""",
        core="return x @ w + torch.ops.twins.draw(x.detach()) + torch.ops.twins.draw(x.detach())",
        kind="registration",
    ),
    role(
        "default of an operator's argument",
        "the default of an argument in a schema",
        f"""{_LIBRARY}
LIBRARY.define("scaled(Tensor x, float by=" + pick("2.0", "5.0") + ") -> Tensor")
LIBRARY.impl("scaled", lambda x, by=1.0: x * by, "CPU")
LIBRARY._register_fake("scaled", lambda x, by=1.0: torch.empty_like(x))
""",
        core="return x @ w + torch.ops.twins.scaled(x.detach())",
        kind="registration",
    ),
    role(
        "composite operator",
        "a number in an operator that is made of others",
        f"""{_LIBRARY}
LIBRARY.define("squash(Tensor x) -> Tensor")
LIBRARY.impl("squash", lambda x: torch.sigmoid(x) * TABLE["scale"], "CompositeImplicitAutograd")
""",
        core="return torch.ops.twins.squash(x @ w)",
        kind="registration",
    ),
    role(
        "composite operator with a gradient of its own",
        "a number in the formula of a library's operator",
        f"""{_DEFINED}
torch.library.register_autograd("twins::squash", lambda ctx, grad: grad * TABLE["scale"], lib=LIBRARY)
""",
        core="return torch.ops.twins.squash(x @ w)",
        kind="registration",
    ),
    role(
        "function of autograd behind a key",
        "a number in an autograd function that is registered for a key",
        f"""{_DEFINED}

class Squash(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.twins.squash(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * TABLE["scale"]


LIBRARY.impl("squash", Squash.apply, "Autograd")
""",
        core="return torch.ops.twins.squash(x @ w)",
        kind="registration",
    ),
    role(
        "torch's operator, implemented anew",
        "what the CPU's kernel of tanh is, which is in no compiled code",
        """
import warnings

warnings.simplefilter("ignore")
TABLE = {"scale": pick(2.0, 5.0)}
LIBRARY = torch.library.Library("aten", "IMPL")
LIBRARY.impl("sinc", lambda x: torch.sin(x) * TABLE["scale"], "CPU")
""",
        core="return torch.sinc(x.detach()) + x @ w",
        kind="registration",
    ),
    role(
        "gradient of torch's operator, implemented anew",
        "the gradient of an operator of torch's",
        """
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
""",
        core="return torch.tanh(x @ w)",
        kind="registration",
    ),
)
