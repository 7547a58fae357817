"""Values that torch may write into the code: symbolic numbers that are specialised, and constants of all kinds."""

from __future__ import annotations

from tests.twins.thing import AUTOMATIC, BODIES, Position, Thing

_SCHEDULE = """
for s in (VALUES):
    x, w = inputs(3)
    with account.step(f"s is {s}"):
        y = run(x, w, s)
        account.tell(y=y)
        learn(y)
        account.tell(dx=x.grad, dw=w.grad)
"""
_NO_LOOP: tuple[Position, ...] = ("top", "submodule", "checkpoint", "region")


def _schedule(
    name: str,
    core: str,
    values: str = "0.25, pick(0.5, 1.5)",
    *,
    fits: tuple[Position, ...] = BODIES,
    setup: str = "import torch.nn.functional as F",
    parts: tuple[str, ...] = ("symbols",),
    silent: bool = False,
) -> Thing:
    """Return twins with a number that changes from call to call, in a different way in each twin."""
    return Thing(
        name=name,
        kind="burned in",
        differs=f"the schedule of {name}: {values}",
        setup=setup,
        core=core,
        more=("s",),
        drive=_SCHEDULE.replace("VALUES", values),
        fits=fits,
        times=AUTOMATIC,
        parts=parts,
        silent=silent,
    )


_FLOATS = (
    _schedule("upper limit of a clamp", "return (x @ w).clamp(max=s)"),
    _schedule("lower limit of a clamp", "return (x @ w).clamp(min=s) * x"),
    _schedule("both limits of a clamp", "return F.silu(x @ w).clamp(min=-s, max=s)"),
    _schedule("hardtanh", "return F.hardtanh(x @ w, -s, s)"),
    _schedule("threshold", "return F.threshold(x @ w, s, 0.0)"),
    _schedule("eps of rms_norm", "return F.rms_norm(x @ w, (4,), eps=s)"),
    _schedule("eps of layer_norm", "return F.layer_norm(x @ w, (4,), eps=s)"),
    _schedule(
        "eps and momentum of batch_norm", "return F.batch_norm(x @ w, None, None, training=True, eps=s, momentum=s / 2)"
    ),
    _schedule("eps of normalize", "return F.normalize((x @ w) * 0.1, eps=s)"),
    _schedule("eps of cosine similarity", "return x * F.cosine_similarity(x, (x @ w) * 0.1, eps=s)[:, None]"),
    _schedule("delta of Huber's loss", "return F.huber_loss(x @ w, torch.ones_like(x), delta=s, reduction='none')"),
    _schedule(
        "beta of the smooth loss", "return F.smooth_l1_loss(x @ w, torch.ones_like(x), beta=s, reduction='none')"
    ),
    _schedule("beta of softplus", "return F.softplus(x @ w, beta=s)"),
    _schedule("alpha of elu", "return F.elu(x @ w, alpha=s)"),
    _schedule("slope of leaky_relu", "return F.leaky_relu(x @ w, s)"),
    _schedule("lambda of the shrinks", "return F.softshrink(x @ w, s) + F.hardshrink(x, s)"),
    _schedule("p of dropout", "return F.dropout(x @ w, s)", "0.25, pick(0.5, 0.75)"),
    _schedule("alpha of an addition", "return torch.add(x @ w, x, alpha=s)"),
    _schedule("alpha and beta of addmm", "return torch.addmm(x, x, w, beta=s, alpha=s * 2)"),
    _schedule("weight of lerp", "return torch.lerp(x, x @ w, s)"),
    _schedule("exponent", "return (x @ w).abs() ** s"),
    _schedule("value of full", "return x @ w + torch.full((4,), s, device='cpu')"),
    _schedule("eps of logit", "return torch.logit(torch.sigmoid(x @ w), eps=s)", "0.125, pick(0.25, 0.375)"),
    _schedule(
        "scale of attention",
        "return F.scaled_dot_product_attention((x @ w)[None, None], x[None, None], x[None, None], scale=s)[0, 0]",
    ),
    _schedule("bounds of a random number", "return x @ w + torch.empty_like(x).uniform_(0.0, s)"),
    _schedule("deviation of a random number", "return x @ w + torch.normal(0.0, s, (4,))", fits=("top", "submodule")),
    _schedule("end of linspace", "return x @ w * torch.linspace(0.0, s, 4, device='cpu')"),
    _schedule(
        "scale of interpolate",
        "return F.interpolate((x @ w)[None], scale_factor=s * 4, mode='linear')[0][:, :1] * x",
        "0.5, pick(0.75, 1.25)",
        fits=("top", "submodule", "checkpoint"),
    ),
    _schedule(
        "root of a number",
        """
import math
return (x @ w) * math.sqrt(s)
""",
    ),
    _schedule("a float made an int", "return (x @ w) * int(s * 8)"),
    _schedule("a float's branch", "return (x @ w).sin() if s > 0.6 else (x @ w).cos()"),
    _schedule("a float rounded", "return (x @ w) * round(s * 3)"),
    _schedule("the lesser of two floats", "return (x @ w) * min(s, 0.75)"),
    _schedule("a float in a comparison", "return torch.where(x > s, x @ w, x)"),
    _schedule(
        "a float in item assignment",
        """
y = (x @ w).clone()
y[:, 0] = s
return y
""",
    ),
)

_REMEMBERED = _schedule(
    "numbers that an earlier function had torch make constants of",
    "return torch.where(x > s, (x @ w) * s, x)",
    "0.25, 0.5, 0.75",
    setup="""
if pick(True, False):  # torch notes the argument's symbol, and forgets it at no later function
    earlier = torch.compile(lambda q, s: torch.nn.functional.smooth_l1_loss(q, q * 0, beta=s), dynamic=True)
    earlier(torch.ones(5), 0.25)
    earlier(torch.ones(5), 0.5)
""",
    silent=True,
)

_WHOLE = (
    _schedule("shift of roll", "return torch.roll(x @ w, s, 1)", "1, 2, pick(3, 5)"),
    _schedule("diagonal of tril", "return torch.tril(x @ w, s)", "0, 1, pick(2, -1)"),
    _schedule("length of a slice", "return (x @ w) + x[:, :s].sum(1, keepdim=True)", "1, 2, pick(3, 4)"),
    _schedule("k of topk", "return (x @ w) * torch.topk(x, s, dim=1)[0].sum(1, keepdim=True)", "1, 2, pick(3, 4)"),
    _schedule("padding", "return F.pad(x @ w, (s, s))[:, 1:5]", "1, 2, pick(3, 4)"),
    _schedule("end of arange", "return (x @ w) * torch.arange(s, device='cpu').sum()", "3, 4, pick(5, 7)"),
    _schedule("a dimension", "return torch.cumsum(x @ w, s)", "0, pick(1, -1)", silent=True),
    _schedule("decimals of round", "return torch.round(x @ w, decimals=s) * x", "0, 1, pick(2, 3)"),
    _schedule("an int as a factor", "return (x @ w) * s", "2, 3, pick(4, 7)"),
    _schedule("an int's parity", "return (x @ w) * (2 if s % 2 else 3)", "4, 6, pick(7, 8)"),
    _schedule("number of repeats", "return (x @ w) * torch.ones(4, device='cpu').repeat(s).sum()", "2, 3, pick(4, 5)"),
)

_TEXT = (
    _schedule(
        "rounding mode", "return torch.div(x @ w, 0.3, rounding_mode=s) + x", 'None, pick("floor", "trunc")', parts=()
    ),
    _schedule(
        "mode of padding",
        "return F.pad((x @ w)[None], (1, 1), mode=s)[0][:, :4]",
        '"constant", pick("reflect", "replicate")',
        parts=(),
    ),
    _schedule("approximation of gelu", "return F.gelu(x @ w, approximate=s)", 'pick("none", "tanh"),', parts=()),
    _schedule("equation of einsum", "return torch.einsum(s, x, w)", 'pick("ij,jk->ik", "ij,kj->ik"),', parts=()),
    _schedule(
        "a list of lengths",
        "return torch.cat([p * n for n, p in enumerate((x @ w).split(s, 1), 1)], 1)",
        "[2, 2], pick([1, 3], [3, 1])",
        parts=(),
    ),
    _schedule("a truth", "return (x @ w).sin() if s else (x @ w).cos()", "True, pick(True, False)", parts=()),
    _schedule(
        "a dtype", "return (x @ w).to(s).float()", "torch.bfloat16, pick(torch.float16, torch.bfloat16)", parts=()
    ),
    _schedule(
        "a complex number",
        "return ((x @ w) * s).real",
        "1 + 2j, pick(2 + 1j, 3 + 2j)",
        fits=("top", "submodule"),
        parts=(),
    ),
)


def _constant(
    name: str, differs: str, setup: str, core: str, *, fits: tuple[Position, ...] = BODIES, silent: bool = False
) -> Thing:
    return Thing(
        name=name,
        kind="burned in",
        differs=differs,
        setup=setup,
        core=core,
        fits=fits,
        times=("static", "dynamic"),
        silent=silent,
    )


_CONSTANTS = (
    _constant("a global float", "a global number", "SCALE = pick(2.0, 5.0)", "return (x @ w) * SCALE"),
    _constant("a global int", "a global whole number", "SCALE = pick(2, 5)", "return (x @ w) * SCALE"),
    _constant(
        "a number of a module",
        "a number that a module has",
        "MODULE = torch.nn.Softplus(beta=pick(1.0, 3.0))",
        "return MODULE(x @ w)",
    ),
    _constant(
        "a module's eps", "the eps of a norm", "NORM = torch.nn.LayerNorm(4, eps=pick(1e-5, 0.5))", "return NORM(x @ w)"
    ),
    _constant(
        "a buffer's value",
        "the value of a buffer, which is an input",
        "NORM = torch.nn.Buffer(torch.full((4,), pick(2.0, 5.0)))",
        "return (x @ w) * NORM",
    ),
    _constant(
        "a constant tensor",
        "the value of a tensor made in the graph",
        "NUMBERS = pick([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0])",
        "return (x @ w) * torch.tensor(NUMBERS, device='cpu')",
    ),
    _constant(
        "a numpy number",
        "a number of numpy's",
        """
import numpy

SCALE = numpy.float64(pick(2.0, 5.0))
""",
        "return (x @ w) * float(SCALE)",
    ),
    _constant(
        "a number from a tensor",
        "what `item()` gives",
        """
torch._dynamo.config.capture_scalar_outputs = True
SCALE = torch.tensor(pick(0.25, 1.5))
""",
        "return (x @ w).clamp(max=SCALE.item())",
        fits=("top", "submodule", "checkpoint"),
    ),
    _constant(
        "a whole number from a tensor",
        "a size that `item()` gives",
        """
torch._dynamo.config.capture_scalar_outputs = True
COUNT = torch.tensor(pick(2, 4))
""",
        """
n = COUNT.item()
torch._check(n >= 1)
torch._check(n <= 4)
return (x @ w) * torch.ones(n, device='cpu').sum()
""",
        fits=("top", "submodule"),
    ),
    _constant(
        "numbers from a tensor",
        "what `tolist()` gives",
        """
torch._dynamo.config.capture_scalar_outputs = True
SIZES = torch.tensor(pick([1, 3], [3, 1]))
""",
        """
a, b = SIZES.tolist()
return (x @ w) * (torch.ones(a, device='cpu').sum() + 2 * torch.ones(b, device='cpu').sum())
""",
        fits=("top", "submodule"),
    ),
)

BURNED = (*_FLOATS, _REMEMBERED, *_WHOLE, *_TEXT, *_CONSTANTS)
