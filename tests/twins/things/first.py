from __future__ import annotations
from tests.twins.thing import *
FIRST = (
    Thing(name="default dtype", kind="ambient state", differs="torch's default dtype",
          setup="torch.set_default_dtype(pick(torch.float32, torch.float64))",
          core='return x @ w * torch.linspace(0.1, 0.7, 4, device="cpu")', fits=ALL, times=BOTH),
    Thing(name="autocast dtype where off", kind="ambient state", differs="the process's autocast dtype",
          setup='torch.set_autocast_dtype("cpu", pick(torch.bfloat16, torch.float16))',
          core='with torch.autocast("cpu"):\n    y = x @ w\nreturn y.float()', fits=BODIES, times=BOTH),
    Thing(name="clamp limit", kind="burned in", differs="the second value of a clamp's limit",
          core="return (x @ w).clamp(max=LIMIT)",
          setup="LIMIT = 0.25", drive="""
for LIMIT in (0.25, pick(0.5, 1.5)):
    x, w = inputs(3)
    with account.step(f"limit {LIMIT}"):
        y = run(x, w)
        account.tell(y=y)
        loss_of(y).backward()
        account.tell(dx=x.grad, dw=w.grad)
""", fits=ALL),
    Thing(name="formula in a dict", kind="custom operator", differs="a number in a dict that an operator's gradient reads",
          setup='''
TABLE = {"scale": pick(2.0, 5.0)}


@torch.library.custom_op("twins::squash", mutates_args=())
def squash(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x)


@squash.register_fake
def _(x):
    return torch.empty_like(x)


def backward(ctx, grad):
    (y,) = ctx.saved_tensors
    return grad * y * (1 - y) * TABLE["scale"]


squash.register_autograd(backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output))
''', core="return squash(x @ w)", fits=BODIES, times=BOTH),
    Thing(name="another folder", kind="harmless", differs="the folder of the program", file={"B": "some/where/else.py"}),
)
