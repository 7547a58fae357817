"""Custom operators whose gradient uses a number from elsewhere, which it reaches through other code."""

from __future__ import annotations

from tests.twins.things.code.formulas import formula_with

FORMULAS_REACHED = (
    formula_with(
        "a default argument",
        "SCALE = pick(2.0, 5.0)",
        formula="""
def formula(ctx, grad, scale=pick(2.0, 5.0)):
    (y,) = ctx.saved_tensors
    return grad * y * scale
""",
    ),
    formula_with(
        "a keyword's default",
        "SCALE = 1.0",
        formula="""
def formula(ctx, grad, *, scale=pick(2.0, 5.0)):
    (y,) = ctx.saved_tensors
    return grad * y * scale
""",
    ),
    formula_with(
        "a partial",
        "import functools",
        formula="""
def scaled(ctx, grad, scale):
    (y,) = ctx.saved_tensors
    return grad * y * scale


formula = functools.partial(scaled, scale=pick(2.0, 5.0))
""",
    ),
    formula_with(
        "a closure",
        "",
        formula="""
def made(scale):
    def formula(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * y * scale

    return formula


formula = made(pick(2.0, 5.0))
""",
    ),
    formula_with(
        "a dict in a closure",
        "",
        formula="""
def made(table):
    def formula(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * y * table['scale']

    return formula


formula = made({'scale': pick(2.0, 5.0)})
""",
    ),
    formula_with(
        "text that was executed",
        "",
        formula="""
scope = {"torch": torch}
result = "    return grad * torch." + pick("sin", "cos") + "(y)"
exec("\\n".join(["def formula(ctx, grad):", "    (y,) = ctx.saved_tensors", result]), scope)
formula = scope["formula"]
""",
    ),
    formula_with(
        "the object of a method",
        "",
        formula="""
class Formula:
    def __init__(self, scale):
        self.scale = scale

    def backward(self, ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * y * self.scale


formula = Formula(pick(2.0, 5.0)).backward
""",
    ),
    formula_with(
        "an object that is called",
        "",
        formula="""
class Formula:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * y * self.scale


formula = Formula(pick(2.0, 5.0))
""",
    ),
    formula_with(
        "a property",
        """
class Settings:
    def __init__(self):
        self._scale = pick(2.0, 5.0)

    @property
    def scale(self):
        return self._scale


SETTINGS = Settings()
""",
        "SETTINGS.scale",
    ),
    formula_with(
        "__getattr__",
        """
class Settings:
    def __getattr__(self, name):
        return TABLE[name]


TABLE = {'scale': pick(2.0, 5.0)}
SETTINGS = Settings()
""",
        "SETTINGS.scale",
    ),
    formula_with(
        "a module's objects",
        """
import sys
import types

sys.modules['twins_settings'] = types.ModuleType('twins_settings')
import twins_settings

twins_settings.inner = types.SimpleNamespace(scale=pick(2.0, 5.0))
""",
        "twins_settings.inner.scale",
    ),
    formula_with(
        "a module imported in the function",
        """
import sys
import types

sys.modules['twins_settings'] = types.ModuleType('twins_settings')
sys.modules['twins_settings'].scale = pick(2.0, 5.0)
""",
        "__import__('twins_settings').scale",
    ),
    formula_with(
        "a function with a cache",
        """
import functools

TABLE = {'scale': pick(2.0, 5.0)}


@functools.lru_cache
def scale():
    return TABLE['scale']
""",
        "scale()",
    ),
    formula_with(
        "a function",
        """
def scale():
    return pick(2.0, 5.0)
""",
        "scale()",
    ),
    formula_with("a lambda", "scale = pick(lambda: 2.0, lambda: 5.0)", "scale()"),
    formula_with(
        "a nested function",
        "TABLE = {'scale': pick(2.0, 5.0)}",
        formula="""
def formula(ctx, grad):
    (y,) = ctx.saved_tensors

    def inner():
        return [TABLE['scale'] for _ in range(1)][0]

    return grad * y * inner()
""",
    ),
    formula_with(
        "one of two functions",
        """
def two():
    return 2.0


def five():
    return 5.0


FUNCTIONS = {'scale': pick(two, five)}
""",
        "FUNCTIONS['scale']()",
    ),
    formula_with(
        "getattr by name",
        """
import types

SPACE = types.SimpleNamespace(scale=pick(2.0, 5.0))
""",
        "getattr(SPACE, 'sc' + 'ale')",
    ),
    formula_with("globals() by name", "SCALE = pick(2.0, 5.0)", "globals()['SC' + 'ALE']"),
    formula_with("eval", "SCALE = pick(2.0, 5.0)", "eval('SCALE')"),
    formula_with(
        "a changed function of another module",
        """
import colorsys

colorsys.rgb_to_hsv = pick(lambda: 2.0, lambda: 5.0)
""",
        "colorsys.rgb_to_hsv()",
    ),
    formula_with(
        "a changed constant of another module",
        """
import math

math.tau = pick(2.0, 5.0)
""",
        "math.tau",
    ),
    formula_with("a changed attribute of torch", "torch.twins_scale = pick(2.0, 5.0)", "torch.twins_scale"),
    formula_with(
        "a changed function deep in torch",
        "torch.nn.functional.twins_scale = pick(lambda: 2.0, lambda: 5.0)",
        "torch.nn.functional.twins_scale()",
    ),
    formula_with(
        "a changed method of a library's class",
        """
import fractions

fractions.Fraction.scale = pick(lambda: 2.0, lambda: 5.0)
""",
        "fractions.Fraction.scale()",
    ),
    formula_with(
        "a changed method of tensors",
        "torch.Tensor.twins_scaled = pick(lambda tensor: tensor * 2.0, lambda tensor: tensor * 5.0)",
        "torch.ones(()).twins_scaled()",
    ),
    formula_with(
        "a changed builtin",
        """
import builtins

builtins.twins_scale = pick(lambda: 2.0, lambda: 5.0)
""",
        "twins_scale()",
    ),
    formula_with(
        "a library's wrapper around it",
        """
import functools
import operator

colours = __import__("colorsys")
colours.scale = functools.partial(operator.mul, pick(2.0, 5.0))
""",
        "colours.scale(1.0)",
    ),
    formula_with(
        "a single dispatch",
        """
import functools


@functools.singledispatch
def scale(value):
    return 1.0


scale.register(int)(pick(lambda value: 2.0, lambda value: 5.0))
""",
        "scale(1)",
    ),
    formula_with(
        "a decorator that pretends",
        """
import functools


def times(scale):
    def decorate(function):
        @functools.wraps(function)
        def wrapped(*args):
            return function(*args) * scale

        return wrapped

    return decorate
""",
        formula="""
@times(pick(2.0, 5.0))
def formula(ctx, grad):
    (y,) = ctx.saved_tensors
    return grad * y * (1 - y)
""",
    ),
)
