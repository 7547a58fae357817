"""What a program promises or torch finds out about sizes: ranges, guards, and the choice of dynamic sizes."""

from __future__ import annotations

from tests.twins.thing import AUTOMATIC, BODIES, Thing

_MARKED = """
for rows in (SIZES):
    x, w = inputs(rows)
    with account.step(f"{rows} rows"):
        MARKING
        y = run(x, w)
        account.tell(y=y)
        learn(y)
        account.tell(dx=x.grad, dw=w.grad)
"""


def _marked(
    name: str,
    differs: str,
    marking: str,
    sizes: str = "6, 20",
    *,
    core: str = "return torch.sin(x @ w) * 3",
    setup: str = "",
) -> Thing:
    return Thing(
        name=name,
        kind="declared range",
        differs=differs,
        setup=setup,
        core=core,
        drive=_MARKED.replace("SIZES", sizes).replace("MARKING", marking),
        fits=BODIES,
        times=AUTOMATIC,
        parts=("symbols",),
        silent=True,
    )


_mark = "torch._dynamo.mark_dynamic(x, 0"

RANGES = (
    _marked(
        "range of a size",
        "whether a range is declared, where the other's code asks for less than 16",
        f"{_mark}, **pick({{}}, {{'min': 3, 'max': 32}}))",
        "*pick((6,), (6, 20)),",
        core="""
if NARROW and x.shape[0] < 16:
    pass
return torch.sin(x @ w) * 3
""",
        setup="NARROW = pick(True, False)",
    ),
    _marked("least size", "the declared least size", f"{_mark}, min=pick(2, 5), max=64)"),
    _marked("greatest size", "the declared greatest size", f"{_mark}, min=2, max=pick(24, 64))"),
    _marked(
        "greatest size of both calls",
        "the declared greatest size and the second size",
        f"{_mark}, min=2, max=pick(7, 64))",
        "6, pick(7, 20)",
    ),
    _marked("declared or not", "whether a range is declared", f"{_mark}, **pick({{}}, {{'min': 2, 'max': 64}}))"),
    _marked(
        "dynamic or unbacked",
        "whether a size is backed",
        "pick(torch._dynamo.mark_dynamic, torch._dynamo.mark_unbacked)(x, 0)",
        core="return torch.sin(x) * 3",
    ),
    _marked(
        "maybe dynamic",
        "whether a size is dynamic for sure",
        "pick(torch._dynamo.mark_dynamic, torch._dynamo.maybe_mark_dynamic)(x, 0)",
    ),
    _marked(
        "static or dynamic",
        "whether a size is marked static",
        "pick(torch._dynamo.mark_dynamic, torch._dynamo.mark_static)(x, 0)",
    ),
    _marked(
        "code that asks for an even size",
        "whether the code asks if a size is even",
        f"{_mark})",
        "6, pick(8, 9)",
        core="""
if NARROW and x.shape[0] % 2 == 0:
    pass
return torch.sin(x @ w) * 3
""",
        setup="NARROW = pick(True, False)",
    ),
    _marked(
        "code that asks for at most ten",
        "whether the code asks if a size is at most ten",
        f"{_mark})",
        "6, pick(8, 20)",
        core="""
if NARROW and x.shape[0] <= 10:
    pass
return torch.sin(x @ w) * 3
""",
        setup="NARROW = pick(True, False)",
    ),
    _marked(
        "a check of a size",
        "what the code checks of a size",
        "pass",
        "6, 20, pick(30, 60)",
        core="""
torch._check(x.shape[0] < LIMIT)
return torch.sin(x @ w) * 3
""",
        setup="LIMIT = pick(40, 100)",
    ),
    _marked("second size", "the second size that is seen", "pass", "3, pick(5, 7)"),
    _marked("size one", "whether the second size is one", "pass", "3, pick(5, 1)"),
    _marked("size zero", "whether the second size is zero", "pass", "3, pick(5, 0)"),
    _marked("first size", "the first size that is seen", "pass", "pick(3, 5), 9, 4"),
    _marked(
        "a hint for a size",
        "the hint that a size is given",
        "torch._dynamo.mark_unbacked(x, 0, hint_override=pick(8, 4096))",
        core="return torch.sin(x) * 3",
    ),
    _marked(
        "two sizes that are the same",
        "whether rows are as many as columns, which torch may take for one symbol",
        "pass",
        "3, pick(5, 4), 9",
    ),
    _marked(
        "duck shapes",
        "whether equal sizes are taken for one",
        "pass",
        "3, 5, 4",
        core="return torch.sin(x @ w) + torch.ones(x.shape[0], 1, device='cpu')",
        setup="""
from torch.fx.experimental import _config

_config.use_duck_shape = pick(True, False)
""",
    ),
    _marked(
        "static by default",
        "whether sizes are taken for static at first",
        "pass",
        "3, 5, 9",
        setup="torch._dynamo.config.assume_static_by_default = pick(True, False)",
    ),
    _marked(
        "automatic dynamic sizes",
        "whether a size that changes becomes dynamic",
        "pass",
        "3, 5, 9",
        setup="torch._dynamo.config.automatic_dynamic_shapes = pick(True, False)",
    ),
    _marked(
        "a size as a number",
        "what is made of a size",
        f"{_mark})",
        "6, 20",
        core="return (x @ w) / (x.shape[0] ** EXPONENT)",
        setup="EXPONENT = pick(0.5, 0.25)",
    ),
    _marked(
        "half of a size",
        "whether a size's half is used",
        f"{_mark})",
        "6, 21",
        core="return (x @ w) + x[: x.shape[0] // PART].sum(0)",
        setup="PART = pick(2, 3)",
    ),
    _marked(
        "sizes that are compared",
        "whether two sizes are found to be equal",
        f"{_mark})",
        "6, pick(8, 4)",
        core="""
if NARROW and x.shape[0] != w.shape[0]:
    pass
return torch.sin(x @ w) * 3
""",
        setup="NARROW = pick(True, False)",
    ),
)
