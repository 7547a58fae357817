"""The client tells a library's own code from code that a program has put in its place."""

from __future__ import annotations

import colorsys
import functools
import math
from typing import Any

import pytest
import torch

from compile_client.graphs.user_code.library_code import is_librarys, replaced


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * 2.0


class _Own(list[int]):
    """What a program derives of a class that is written in C."""


def _own(x: Any) -> Any:
    return x


def _posing() -> Any:
    """Return a function of ours that claims to be a library's, as `functools.wraps` makes it claim."""
    return functools.wraps(torch.nn.functional.gelu)(lambda x: x)


def _generated() -> Any:
    """Return what torch builds around a formula: a function of torch's, over a class of torch's, over our function."""
    from torch._library.autograd import Info, make_autograd_impl

    return make_autograd_impl(torch.ops.aten.sin.default, Info(_own, None))


@pytest.mark.parametrize(
    "value",
    [
        torch.nn.functional.gelu,
        torch.nn.functional.max_pool2d,
        torch.nn.Linear,
        torch.autograd.Function.apply,
        functools.partial(math.fsum, [1.0]),
        functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    ],
    ids=["built-in", "dispatching", "class", "bound method", "partial", "partial with a name"],
)
def test_a_librarys_code_is_its_own(value: Any) -> None:
    assert is_librarys(value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(_own, id="function"),
        Scaled,
        Scaled.apply,
        pytest.param(_Own().index, id="bound in C"),
        pytest.param(_Own().__add__, id="wrapper bound in C"),
        pytest.param(functools.partial(_own, 1), id="partial"),
        pytest.param(functools.partial(map, _own), id="argument of a partial"),
        pytest.param(torch.compiler.disable(_own), id="disabled"),
        pytest.param(torch.no_grad()(_own), id="decorated"),
        pytest.param(_posing(), id="posing"),
        pytest.param(_generated(), id="generated"),
        type("Made", (torch.nn.Linear,), {"forward": _own}),
    ],
    ids=lambda value: value.__qualname__,
)
def test_what_a_library_makes_around_a_programs_code_is_the_programs(value: Any) -> None:
    assert not is_librarys(value)


def test_what_a_program_puts_into_a_library_is_found_under_the_names_that_code_uses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not list(replaced(torch, ("nn", "functional", "gelu", "sin", "Tensor", "sigmoid")))

    monkeypatch.setattr(torch.nn.functional, "gelu", _own)
    monkeypatch.setattr(torch.Tensor, "sigmoid", _own)
    monkeypatch.setattr(colorsys, "rgb_to_hsv", functools.partial(_own, 2))
    monkeypatch.setattr(math, "tau", 5.0)
    monkeypatch.setattr(math, "fsum", functools.partial(math.fsum, [2.0]))

    deep = dict(replaced(torch, ("nn", "functional", "gelu", "sin", "Tensor", "sigmoid")))
    assert deep == {"torch.nn.functional.gelu": _own, "Tensor.sigmoid": _own}
    assert {where for where, _ in replaced(colorsys, ("rgb_to_hsv", "hsv_to_rgb"))} == {"colorsys.rgb_to_hsv"}
    assert dict(replaced(math, ("tau", "sin", "fsum"))) == {"math.tau": 5.0, "math.fsum": math.fsum}

    apply, held = Scaled.apply, _Own([2]).index
    monkeypatch.setattr(torch.nn.functional, "silu", apply)
    monkeypatch.setattr(torch.nn.functional, "relu", held)
    found = dict(replaced(torch, ("nn", "functional", "silu", "relu", "celu")))
    assert found == {"torch.nn.functional.silu": apply, "torch.nn.functional.relu": held}
