"""Differences that do not matter: B must be served what was made for A."""

from __future__ import annotations

from collections.abc import Mapping

from tests.twins.thing import BOTH, Phase, Position, Thing

_FITS: tuple[Position, ...] = ("top", "submodule", "checkpoint", "function", "cond")
_OPERATOR = """
TABLE = {"scale": 2.0}
NAMES = {"one", "two", "three", "four"}


class Settings:
    def __init__(self, scale):
        self.scale = scale


SETTINGS = Settings(3.0)


@torch.library.custom_op("twins::squash", mutates_args=())
def squash(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x)


@squash.register_fake
def _(x):
    return torch.empty_like(x)


def formula(ctx, grad):
    (y,) = ctx.saved_tensors
    return grad * y * (1 - y) * TABLE["scale"] * SETTINGS.scale * len(NAMES)


def keep(ctx, inputs, output):
    ctx.save_for_backward(output)


squash.register_autograd(formula, setup_context=keep)
"""
_SQUASH = "return squash(x @ w)"


def _harmless(
    name: str,
    differs: str,
    *,
    setup: str = "",
    core: str = """
y = x @ w
return torch.tanh(y) * 0.5
""",
    around: str = "if True:",
    environment: Mapping[Phase, Mapping[str, str]] | None = None,
    fresh: bool = False,
    file: str = "",
    edits: tuple[tuple[str, str], ...] = (),
    fits: tuple[Position, ...] = _FITS,
) -> Thing:
    return Thing(
        name=f"harmless: {name}",
        kind="harmless",
        differs=differs,
        setup=setup,
        core=core,
        around=around,
        environment=environment or {},
        fresh=fresh,
        file={"B": file} if file else {},
        edits=edits,
        fits=fits,
        times=BOTH,
        silent=True,
    )


def _variables(name: str, *, fresh: bool = False, **b: str) -> Thing:
    fits: tuple[Position, ...] = ("top", "function")
    return _harmless(name, f"the variables {', '.join(b)}", environment={"B": b}, fresh=fresh, fits=fits)


HARMLESS = (
    _harmless("another folder", "the folder of the program", file="some/where/program.py"),
    _harmless("another file name", "the name of the program's file", file="another.py"),
    _harmless(
        "other lines",
        "the lines in which the functions are",
        edits=(
            (
                "def core(",
                """
# A comment.
# And one more.


def core(
""",
            ),
        ),
    ),
    _harmless("a comment", "a comment in the function", edits=(("    y = x @ w\n", "    y = x @ w  # the product\n"),)),
    _harmless(
        "a docstring",
        "a docstring of the function",
        edits=(("    y = x @ w\n", '    """Say what it does."""\n    y = x @ w\n'),),
    ),
    _harmless(
        "another local name",
        "the name of a local variable",
        edits=(
            (
                """
    y = x @ w
    return torch.tanh(y)
""",
                """
    product = x @ w
    return torch.tanh(product)
""",
            ),
        ),
    ),
    _harmless(
        "order of imports",
        "the order of imports",
        edits=(
            (
                """
import random

import torch
""",
                """
import torch

import random
""",
            ),
        ),
    ),
    _harmless(
        "another import",
        "a module that is imported and not used",
        edits=(
            (
                "import random\n",
                """
import colorsys
import random
""",
            ),
        ),
    ),
    _harmless(
        "a function not used",
        "a function that is not used",
        edits=(
            (
                "def core(",
                """
def unused(x):
    return x * 3


def core(
""",
            ),
        ),
    ),
    _harmless(
        "a global not used",
        "a global that is not used",
        edits=(
            (
                "def core(",
                """
UNUSED = 17


def core(
""",
            ),
        ),
    ),
    _harmless(
        "name of the function",
        "the name of the compiled function",
        edits=(("def step(", "def other("), ("return step(", "return other(")),
    ),
    _harmless("name of an inner function", "the name of the function that is called", edits=(("core(", "inside("),)),
    _harmless(
        "name of a class", "the name of a class", edits=(("Inner", "Within"), ("Outer", "Without")), fits=("submodule",)
    ),
    _harmless(
        "name of a function's class",
        "the name of an autograd function",
        edits=(("Through", "Across"),),
        fits=("function", "backward"),
    ),
    _harmless(
        "another seed",
        "the seed of random numbers",
        setup="torch.manual_seed(pick(1, 2))",
        core="return x @ w + torch.rand_like(x)",
    ),
    _harmless(
        "other values",
        "the values of an input",
        setup="BIAS = torch.full((4,), pick(0.25, 0.75))",
        core="return torch.tanh(x @ w + BIAS)",
    ),
    _harmless(
        "more threads between operators",
        "nothing but the print options",
        setup="torch.set_printoptions(precision=pick(4, 8))",
    ),
    _harmless(
        "logging",
        "the level of torch's log",
        setup="""
import logging

logging.getLogger('torch').setLevel(pick(logging.WARNING, logging.ERROR))
""",
    ),
    _harmless(
        "a graph before",
        "whether another graph was compiled before",
        setup="""
before = torch.compile(lambda x: x.sin().cos() + 41)
before(torch.ones(pick(2, 3)))
""",
        fits=("top",),
    ),
    _variables("hash seed", fresh=True, PYTHONHASHSEED="4711"),
    _variables("rank", RANK="3", LOCAL_RANK="3", WORLD_SIZE="8", MASTER_ADDR="127.0.0.1", MASTER_PORT="29500"),
    _variables("home", HOME="/tmp", USER="somebody", LOGNAME="somebody"),
    _variables("locale", fresh=True, LC_ALL="C", LANG="C", TZ="Asia/Tokyo"),
    _variables("columns", COLUMNS="40", TERM="dumb", SOMETHING_ELSE="1"),
    _variables(
        "python's switches", fresh=True, PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1", PYTHONWARNINGS="ignore"
    ),
    _harmless(
        "operator in another folder",
        "the folder of a program with an operator",
        setup=_OPERATOR,
        core=_SQUASH,
        file="some/where/program.py",
    ),
    _harmless(
        "operator in another process",
        "nothing but what a process makes by itself: addresses of objects",
        setup=_OPERATOR,
        core=_SQUASH,
        environment={"B": {"PYTHONHASHSEED": "4711"}},
        fresh=True,
        fits=("top", "function"),
    ),
    _harmless(
        "a count that a tensor holds",
        "the number of batches that a normalisation has seen",
        setup="NORM = torch.nn.BatchNorm1d(4)\nNORM.num_batches_tracked.fill_(pick(0, 500))\n",
        core="return NORM(x @ w)",
        fits=("top",),
    ),
    _harmless(
        "a step that a tensor holds",
        "the number in a tensor that the graph computes with",
        setup="STEP = torch.tensor(pick(3, 700))\nRATE = torch.tensor(pick(0.5, 0.25), dtype=torch.float64)\n",
        core="return torch.tanh(x @ w) + torch.sign(STEP) + torch.sign(RATE)",
        fits=("top", "function"),
    ),
    _harmless(
        "operator beside a counter",
        "a number in a dict that the operator does not read",
        setup=_OPERATOR + "\n\nOTHERS = {'steps': pick(1, 2)}\n",
        core=_SQUASH,
    ),
)
