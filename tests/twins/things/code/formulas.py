"""Custom operators whose gradient uses a number from elsewhere, which is held by values and objects."""

from __future__ import annotations

from collections.abc import Mapping

from tests.twins.thing import BODIES, BOTH, Phase, Position, Thing

_OPERATOR = """
@torch.library.custom_op("twins::squash", mutates_args=())
def squash(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x)


@squash.register_fake
def _(x):
    return torch.empty_like(x)


def keep(ctx, inputs, output):
    ctx.save_for_backward(output)
"""


_BACKWARD = """
def formula(ctx, grad):
    (y,) = ctx.saved_tensors
    return grad * y * (1 - y) * (NUMBER)
"""


_REGISTER = "\n\nsquash.register_autograd(formula, setup_context=keep)\n"


def formula_with(
    name: str,
    before: str,
    number: str = "",
    *,
    formula: str = "",
    fits: tuple[Position, ...] = BODIES,
    environment: Mapping[Phase, Mapping[str, str]] | None = None,
) -> Thing:
    """Return twins whose gradient uses a number from elsewhere: `before` puts it there, and `number` reads it."""
    setup = before.strip("\n") + "\n\n" + _OPERATOR + (formula or _BACKWARD.replace("NUMBER", number)) + _REGISTER
    return Thing(
        name=f"formula: {name}",
        kind="custom operator",
        differs=f"the number in an operator's gradient, which is read from: {name}",
        setup=setup,
        core="return squash(x @ w)",
        fits=fits,
        times=BOTH,
        environment=environment or {},
        parts=("user_code",),
    )


FORMULAS = (
    formula_with("a global", "SCALE = pick(2.0, 5.0)", "SCALE"),
    formula_with("a dict", 'TABLE = {"scale": pick(2.0, 5.0)}', 'TABLE["scale"]'),
    formula_with("a dict in a dict", 'TABLE = {"a": {"scale": pick(2.0, 5.0)}}', 'TABLE["a"]["scale"]'),
    formula_with(
        "a namespace",
        """
import types

SPACE = types.SimpleNamespace(scale=pick(2.0, 5.0))
""",
        "SPACE.scale",
    ),
    formula_with(
        "an instance",
        """
class Settings:
    def __init__(self, scale):
        self.scale = scale


SETTINGS = Settings(pick(2.0, 5.0))
""",
        "SETTINGS.scale",
    ),
    formula_with(
        "slots",
        """
class Settings:
    __slots__ = ('scale',)


SETTINGS = Settings()
SETTINGS.scale = pick(2.0, 5.0)
""",
        "SETTINGS.scale",
    ),
    formula_with("a list in a list", "PARTS = [[pick(2.0, 5.0)]]", "PARTS[0][0]"),
    formula_with("a tuple", "PARTS = (1, (pick(2.0, 5.0), 2))", "PARTS[1][0]"),
    formula_with("a set", "PARTS = frozenset({pick(2.0, 5.0)})", "max(PARTS)"),
    formula_with(
        "a class",
        """
class Settings:
    scale = pick(2.0, 5.0)
""",
        "Settings.scale",
    ),
    formula_with(
        "a class above",
        """
class Above:
    scale = pick(2.0, 5.0)


class Settings(Above):
    pass
""",
        "Settings().scale",
    ),
    formula_with(
        "an enum",
        """
import enum


class Scale(enum.Enum):
    NOW = pick(2.0, 5.0)
""",
        "Scale.NOW.value",
    ),
    formula_with(
        "a dataclass",
        """
import dataclasses


@dataclasses.dataclass(frozen=True)
class Settings:
    scale: float


SETTINGS = Settings(pick(2.0, 5.0))
""",
        "SETTINGS.scale",
    ),
    formula_with(
        "a named tuple",
        """
import collections

SETTINGS = collections.namedtuple('Settings', 'scale')(pick(2.0, 5.0))
""",
        "SETTINGS.scale",
    ),
    formula_with(
        "a file",
        """
import pathlib

FILE = pathlib.Path(__file__).with_name('scale.txt')
FILE.write_text(pick('2.0', '5.0'))
""",
        "float(FILE.read_text())",
    ),
    formula_with(
        "a numpy array",
        """
import numpy

ARRAY = numpy.array([pick(2.0, 5.0)])
""",
        "float(ARRAY[0])",
    ),
    formula_with("a tensor", "NUMBERS = torch.tensor([pick(2.0, 5.0)])", "NUMBERS.numpy()[0].item()"),
    formula_with("a tensor that is an operand", "NUMBERS = torch.tensor([pick(2.0, 5.0)])", "NUMBERS"),
    formula_with("the shape of a tensor", "NUMBERS = torch.zeros(pick(2, 5))", "NUMBERS.shape[0]"),
    formula_with(
        "a context variable",
        """
import contextvars

SCALE = contextvars.ContextVar('scale')
SCALE.set(pick(2.0, 5.0))
""",
        "SCALE.get()",
    ),
    formula_with(
        "a thread's own",
        """
import threading

SPACE = threading.local()
SPACE.scale = pick(2.0, 5.0)
""",
        "SPACE.scale",
    ),
    formula_with(
        "a weak reference",
        """
import weakref


class Settings:
    pass


SETTINGS = Settings()
SETTINGS.scale = pick(2.0, 5.0)
REFERENCE = weakref.ref(SETTINGS)
""",
        "REFERENCE().scale",
    ),
    formula_with("a module of torch's", "MODULE = torch.nn.Dropout(pick(0.25, 0.5))", "MODULE.p"),
    formula_with("torch's own setting", "torch.set_num_threads(pick(1, 2))", "float(torch.get_num_threads())"),
    formula_with(
        "the environment",
        """
import os

os.environ["TWINS_SCALE"] = pick("2.0", "5.0")
""",
        'float(os.environ["TWINS_SCALE"])',
    ),
    formula_with(
        "the environment, as it was started",
        "import os",
        'float(os.getenv("TWINS_SCALE", "0"))',
        environment={"A": {"TWINS_SCALE": "2.0"}, "B": {"TWINS_SCALE": "5.0"}},
    ),
    formula_with("the command line", "import sys", '{"A": 2.0, "B": 5.0}[sys.argv[1]]'),
    formula_with(
        "the name of the process",
        """
import multiprocessing

multiprocessing.current_process().name = pick('2.0', '5.0')
""",
        "float(multiprocessing.current_process().name)",
    ),
)
