"""What an operator of the user's was used for before changes no key: torch notes some uses in the operator itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from compile_client.graphs.user_code import registrations
from compile_client.graphs.user_code.search import user_code_of
from tests.client.test_client_user_code import graph_of

Make = Callable[[str], None]


@pytest.fixture(autouse=True)
def _watched() -> Iterator[None]:
    registrations.watch()
    yield
    registrations.unwatch()
    registrations._kernels.clear()


def _doubled(x: Tensor) -> Tensor:
    return x * 2


def _alike(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def _gradient(_: Any, grad: Tensor) -> Tensor:
    return grad * 2


def _custom_op(name: str) -> Any:
    op = torch.library.custom_op(name, _doubled, mutates_args=(), schema="(Tensor x) -> Tensor")
    op.register_fake(_alike)
    op.register_autograd(_gradient)
    return op


def _with_kernel(name: str) -> None:
    _custom_op(name).register_kernel("cpu")(_doubled)


def _with_vmap(name: str) -> None:
    _custom_op(name).register_vmap(lambda info, dims, x: (_doubled(x), dims[0]))


def _triton_op(name: str) -> None:
    def body(x: Tensor) -> Tensor:
        return x * 2

    op = torch.library.triton_op(name, body, mutates_args=())
    op.register_autograd(_gradient)


def _library(name: str) -> None:
    torch.library.define(name, "(Tensor x) -> Tensor")
    torch.library.impl(name, "CPU", _doubled)
    torch.library.register_fake(name, _alike)
    torch.library.register_autograd(name, _gradient)


def _composite(name: str) -> None:
    torch.library.define(name, "(Tensor x) -> Tensor")
    torch.library.impl(name, "CompositeImplicitAutograd", _doubled)


MAKERS: dict[str, Make] = {
    "custom_op": _custom_op,
    "custom_op_with_kernel": _with_kernel,
    "custom_op_with_vmap": _with_vmap,
    "triton_op": _triton_op,
    "library": _library,
    "composite": _composite,
}


def _used(op: Callable[[Tensor], Tensor], *, batched: bool) -> None:
    """Use an operator eagerly, under a transform, and in a compiled function, forward and backward."""

    def loss(x: Tensor) -> Tensor:
        return op(x).sin().sum()

    for dynamic in (False, True):
        x = torch.randn(4, 3, requires_grad=True)
        loss(x).backward()
        torch.compile(loss, backend="aot_eager", dynamic=dynamic)(x).backward()
    with torch.no_grad():
        torch.compile(loss, backend="aot_eager")(torch.randn(5, 3))
    if batched:
        torch.vmap(op)(torch.randn(4, 3))


@pytest.mark.parametrize("kind", MAKERS)
def test_an_operator_that_was_used_has_the_digest_that_it_had_before(kind: str) -> None:
    MAKERS[kind](f"used_before::{kind}")
    op = getattr(torch.ops.used_before, kind)
    graph = functools.partial(user_code_of, graph_of(op.default), [torch.ones(2)])
    before = graph()

    torch._dynamo.reset()
    _used(op, batched=kind == "custom_op_with_vmap")

    after = graph()
    assert before.digest
    assert after == before
