"""Custom operators: where a number may hide that a compile reads when it runs the user's own code."""

from __future__ import annotations

from collections.abc import Mapping

from tests.twins.thing import BODIES, BOTH, Phase, Position, Thing

_OPERATOR = '''
@torch.library.custom_op("twins::squash", mutates_args=())
def squash(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x)


@squash.register_fake
def _(x):
    return torch.empty_like(x)


def keep(ctx, inputs, output):
    ctx.save_for_backward(output)
'''
_BACKWARD = '''
def formula(ctx, grad):
    (y,) = ctx.saved_tensors
    return grad * y * (1 - y) * (NUMBER)
'''
_REGISTER = "\n\nsquash.register_autograd(formula, setup_context=keep)\n"
_PARTS = ("operators",)


def _number(
    name: str,
    before: str,
    number: str = "",
    *,
    formula: str = "",
    fits: tuple[Position, ...] = BODIES,
    environment: Mapping[Phase, Mapping[str, str]] | None = None,
) -> Thing:
    """A gradient that has a number from somewhere: `before` puts it there, and `number` reads it."""
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
        parts=_PARTS,
    )


_FORMULAS = (
    _number("a global", "SCALE = pick(2.0, 5.0)", "SCALE"),
    _number("a dict", 'TABLE = {"scale": pick(2.0, 5.0)}', 'TABLE["scale"]'),
    _number("a dict in a dict", 'TABLE = {"a": {"scale": pick(2.0, 5.0)}}', 'TABLE["a"]["scale"]'),
    _number("a namespace", "import types\n\nSPACE = types.SimpleNamespace(scale=pick(2.0, 5.0))", "SPACE.scale"),
    _number("an instance", "class Settings:\n    def __init__(self, scale):\n        self.scale = scale\n\n\nSETTINGS = Settings(pick(2.0, 5.0))", "SETTINGS.scale"),
    _number("slots", "class Settings:\n    __slots__ = ('scale',)\n\n\nSETTINGS = Settings()\nSETTINGS.scale = pick(2.0, 5.0)", "SETTINGS.scale"),
    _number("the environment", 'import os\n\nos.environ["TWINS_SCALE"] = pick("2.0", "5.0")', 'float(os.environ["TWINS_SCALE"])'),
    _number("the environment, as it was started", "import os", 'float(os.getenv("TWINS_SCALE", "0"))', environment={"A": {"TWINS_SCALE": "2.0"}, "B": {"TWINS_SCALE": "5.0"}}),
    _number("the command line", "import sys", '{"A": 2.0, "B": 5.0}[sys.argv[1]]'),
    _number("a default argument", "SCALE = pick(2.0, 5.0)", formula="def formula(ctx, grad, scale=pick(2.0, 5.0)):\n    (y,) = ctx.saved_tensors\n    return grad * y * scale\n"),
    _number("a keyword's default", "SCALE = 1.0", formula="def formula(ctx, grad, *, scale=pick(2.0, 5.0)):\n    (y,) = ctx.saved_tensors\n    return grad * y * scale\n"),
    _number("a partial", "import functools", formula="def scaled(ctx, grad, scale):\n    (y,) = ctx.saved_tensors\n    return grad * y * scale\n\n\nformula = functools.partial(scaled, scale=pick(2.0, 5.0))\n"),
    _number("a list in a list", "PARTS = [[pick(2.0, 5.0)]]", "PARTS[0][0]"),
    _number("a tuple", "PARTS = (1, (pick(2.0, 5.0), 2))", "PARTS[1][0]"),
    _number("a set", "PARTS = frozenset({pick(2.0, 5.0)})", "max(PARTS)"),
    _number("a closure", "", formula="def made(scale):\n    def formula(ctx, grad):\n        (y,) = ctx.saved_tensors\n        return grad * y * scale\n\n    return formula\n\n\nformula = made(pick(2.0, 5.0))\n"),
    _number("a dict in a closure", "", formula="def made(table):\n    def formula(ctx, grad):\n        (y,) = ctx.saved_tensors\n        return grad * y * table['scale']\n\n    return formula\n\n\nformula = made({'scale': pick(2.0, 5.0)})\n"),
    _number("text that was executed", "", formula='scope = {"torch": torch}\nexec(\n    f"def formula(ctx, grad):\\n    (y,) = ctx.saved_tensors\\n    return grad * torch.{pick(\'sin\', \'cos\')}(y)\\n", scope\n)\nformula = scope["formula"]\n'),
    _number("the object of a method", "", formula="class Formula:\n    def __init__(self, scale):\n        self.scale = scale\n\n    def backward(self, ctx, grad):\n        (y,) = ctx.saved_tensors\n        return grad * y * self.scale\n\n\nformula = Formula(pick(2.0, 5.0)).backward\n"),
    _number("an object that is called", "", formula="class Formula:\n    def __init__(self, scale):\n        self.scale = scale\n\n    def __call__(self, ctx, grad):\n        (y,) = ctx.saved_tensors\n        return grad * y * self.scale\n\n\nformula = Formula(pick(2.0, 5.0))\n"),
    _number("a class", "class Settings:\n    scale = pick(2.0, 5.0)", "Settings.scale"),
    _number("a class above", "class Above:\n    scale = pick(2.0, 5.0)\n\n\nclass Settings(Above):\n    pass", "Settings().scale"),
    _number("a property", "class Settings:\n    def __init__(self):\n        self._scale = pick(2.0, 5.0)\n\n    @property\n    def scale(self):\n        return self._scale\n\n\nSETTINGS = Settings()", "SETTINGS.scale"),
    _number("__getattr__", "class Settings:\n    def __getattr__(self, name):\n        return TABLE[name]\n\n\nTABLE = {'scale': pick(2.0, 5.0)}\nSETTINGS = Settings()", "SETTINGS.scale"),
    _number("a module's objects", "import sys\nimport types\n\nsys.modules['twins_settings'] = types.ModuleType('twins_settings')\nimport twins_settings\n\ntwins_settings.inner = types.SimpleNamespace(scale=pick(2.0, 5.0))", "twins_settings.inner.scale"),
    _number("a module imported in the function", "import sys\nimport types\n\nsys.modules['twins_settings'] = types.ModuleType('twins_settings')\nsys.modules['twins_settings'].scale = pick(2.0, 5.0)", "__import__('twins_settings').scale"),
    _number("a function with a cache", "import functools\n\nTABLE = {'scale': pick(2.0, 5.0)}\n\n\n@functools.lru_cache\ndef scale():\n    return TABLE['scale']", "scale()"),
    _number("a function", "def scale():\n    return pick(2.0, 5.0)", "scale()"),
    _number("a lambda", "scale = pick(lambda: 2.0, lambda: 5.0)", "scale()"),
    _number("a nested function", "TABLE = {'scale': pick(2.0, 5.0)}", formula="def formula(ctx, grad):\n    (y,) = ctx.saved_tensors\n\n    def inner():\n        return [TABLE['scale'] for _ in range(1)][0]\n\n    return grad * y * inner()\n"),
    _number("one of two functions", "def two():\n    return 2.0\n\n\ndef five():\n    return 5.0\n\n\nFUNCTIONS = {'scale': pick(two, five)}", "FUNCTIONS['scale']()"),
    _number("an enum", "import enum\n\n\nclass Scale(enum.Enum):\n    NOW = pick(2.0, 5.0)", "Scale.NOW.value"),
    _number("a dataclass", "import dataclasses\n\n\n@dataclasses.dataclass(frozen=True)\nclass Settings:\n    scale: float\n\n\nSETTINGS = Settings(pick(2.0, 5.0))", "SETTINGS.scale"),
    _number("a named tuple", "import collections\n\nSETTINGS = collections.namedtuple('Settings', 'scale')(pick(2.0, 5.0))", "SETTINGS.scale"),
    _number("getattr by name", "import types\n\nSPACE = types.SimpleNamespace(scale=pick(2.0, 5.0))", "getattr(SPACE, 'sc' + 'ale')"),
    _number("globals() by name", "SCALE = pick(2.0, 5.0)", "globals()['SC' + 'ALE']"),
    _number("eval", "SCALE = pick(2.0, 5.0)", "eval('SCALE')"),
    _number("a changed function of another module", "import colorsys\n\ncolorsys.rgb_to_hsv = pick(lambda: 2.0, lambda: 5.0)", "colorsys.rgb_to_hsv()"),
    _number("a changed constant of another module", "import math\n\nmath.tau = pick(2.0, 5.0)", "math.tau"),
    _number("a changed attribute of torch", "torch.twins_scale = pick(2.0, 5.0)", "torch.twins_scale"),
    _number("a file", "import pathlib\n\nFILE = pathlib.Path(__file__).with_name('scale.txt')\nFILE.write_text(pick('2.0', '5.0'))", "float(FILE.read_text())"),
    _number("a numpy array", "import numpy\n\nARRAY = numpy.array([pick(2.0, 5.0)])", "float(ARRAY[0])"),
    _number("a tensor", "NUMBERS = torch.tensor([pick(2.0, 5.0)])", "NUMBERS.numpy()[0].item()"),
    _number("a tensor that is an operand", "NUMBERS = torch.tensor([pick(2.0, 5.0)])", "NUMBERS"),
    _number("the shape of a tensor", "NUMBERS = torch.zeros(pick(2, 5))", "NUMBERS.shape[0]"),
    _number("a context variable", "import contextvars\n\nSCALE = contextvars.ContextVar('scale')\nSCALE.set(pick(2.0, 5.0))", "SCALE.get()"),
    _number("a thread's own", "import threading\n\nSPACE = threading.local()\nSPACE.scale = pick(2.0, 5.0)", "SPACE.scale"),
    _number("a single dispatch", "import functools\n\n\n@functools.singledispatch\ndef scale(value):\n    return 1.0\n\n\nscale.register(int)(pick(lambda value: 2.0, lambda value: 5.0))", "scale(1)"),
    _number("a decorator that pretends", "import functools\n\n\ndef times(scale):\n    def decorate(function):\n        @functools.wraps(function)\n        def wrapped(*args):\n            return function(*args) * scale\n\n        return wrapped\n\n    return decorate",
            formula="@times(pick(2.0, 5.0))\ndef formula(ctx, grad):\n    (y,) = ctx.saved_tensors\n    return grad * y * (1 - y)\n"),
    _number("a module of torch's", "MODULE = torch.nn.Dropout(pick(0.25, 0.5))", "MODULE.p"),
    _number("torch's own setting", "torch.set_num_threads(pick(1, 2))", "float(torch.get_num_threads())"),
    _number("the name of the process", "import multiprocessing\n\nmultiprocessing.current_process().name = pick('2.0', '5.0')", "float(multiprocessing.current_process().name)"),
    _number("a weak reference", "import weakref\n\n\nclass Settings:\n    pass\n\n\nSETTINGS = Settings()\nSETTINGS.scale = pick(2.0, 5.0)\nREFERENCE = weakref.ref(SETTINGS)", "REFERENCE().scale"),
)

OPERATORS = _FORMULAS
