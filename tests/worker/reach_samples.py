"""Programs of plain torch, each with nodes of one kind, and what becomes of their graphs without compiling any."""

from __future__ import annotations

import typing
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo import config as dynamo_config
from torch._higher_order_ops.associative_scan import associative_scan
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.worker.worker_samples import Captured, all_captured


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A function with its arguments, made anew each time."""

    function: Callable[..., Any]
    arguments: Callable[[], tuple[Any, ...]]
    dynamic: tuple[bool, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    """Of dynamo."""


PROGRAMS: dict[str, Program] = {}
_TORCH = tuple(int(part) for part in torch.__version__.split(".")[:2])


def program(
    arguments: Callable[[], tuple[Any, ...]], *, dynamic: tuple[bool, ...] = (False, True), **settings: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        PROGRAMS[function.__name__] = Program(
            function=function, arguments=arguments, dynamic=dynamic, settings=settings
        )
        return function

    return enter


def captured_graphs(name: str, *, dynamic: bool) -> list[Captured]:
    """The graphs of a program that torch has a key for."""
    chosen = PROGRAMS[name]
    with dynamo_config.patch(**chosen.settings), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of the gradients of tensors under way
        return all_captured(chosen.function, *chosen.arguments(), dynamic=dynamic)


def _leaf(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def _matrix() -> tuple[Any, ...]:
    return (_leaf(4, 6),)


def _plain() -> tuple[Any, ...]:
    return (torch.randn(4, 6),)


class Pair(typing.NamedTuple):
    tensor: Tensor
    number: int


@dataclass
class Output:
    tensor: Tensor
    number: Any = None


@program(_matrix)
def use_of_a_library_is_logged(x: Tensor) -> Tensor:
    torch._C._log_api_usage_once("python.some_library")
    return x.sin()


@program(_matrix, dynamic=(False,))
def use_is_logged_in_a_checkpoint(x: Tensor) -> Any:
    def body(y: Tensor) -> Tensor:
        torch._C._log_api_usage_once("python.some_library")
        return y.sin().cos()

    return torch.utils.checkpoint.checkpoint(body, x, use_reentrant=False)


@program(lambda: (_leaf(2, 4, 6), _leaf(6, 5), _leaf(5)))
def a_size_is_computed_and_handed_on_whole(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    size = (*x.size()[:-1], weight.shape[1])
    return torch.addmm(bias, x.view(-1, x.size(-1)), weight).view(x.size()[:-1] + torch.Size(size[-1:]))


@program(lambda: (_leaf(2, 4, 6), _leaf(6, 5), _leaf(5)))
def a_size_has_a_number_appended(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, x.view(-1, x.size(-1)), weight).view(x.size()[:-1] + (5,))  # noqa: RUF005 - a size stays one


@program(_matrix)
def a_tensor_in_the_middle_is_an_input_of_the_next_graph(x: Tensor) -> Tensor:
    y = x * x.shape[0]
    torch._dynamo.graph_break()
    return y.cos() + x


@program(_plain)
def symbols_found_to_be_numbers(x: Tensor) -> Tensor:
    return (x @ torch.ones(6, 4)).view(4, 4) + torch.eye(4)


@program(lambda: (torch.randint(0, 9, (4, 6)),))
def one_hot_of_given_classes(x: Tensor) -> Tensor:
    return F.one_hot(x, 9).float().mean(0)


@program(lambda: (torch.randn(6, 8), torch.randn(6, 3)))
def a_mixture_of_experts(x: Tensor, router: Tensor) -> Any:
    weights, chosen = router.softmax(-1).topk(2)
    mask = F.one_hot(chosen, num_classes=3).permute(2, 1, 0)
    return mask.float().sum(1) @ x, weights


@program(_matrix)
def a_region_is_compiled_once(x: Tensor) -> Any:
    @torch.compiler.nested_compile_region
    def region(y: Tensor) -> Tensor:
        return y.sin() * 2

    return region(region(x))


@program(_matrix)
def constructors_of_a_size(x: Tensor) -> Any:
    rows, columns = x.shape
    made = torch.full((rows, columns), 2.0) + torch.full(x.size(), rows) + torch.ones(x.size()) + torch.zeros(x.shape)
    made = made + torch.arange(columns) + torch.eye(columns)[:1] + torch.linspace(0, 1, columns)
    return x + made + x.new_zeros(rows, columns) + x.new_ones((rows, 1)) + x.new_full((rows, columns), 3)


@program(_matrix)
def views_with_sizes_of_inputs(x: Tensor) -> Any:
    y = x.sin()
    return (
        y.reshape(x.shape[1], x.shape[0]),
        y.view(x.shape[0] * x.shape[1]),
        y.reshape(torch.Size([x.shape[1], x.shape[0]])),
        y.unflatten(1, (2, 3)).flatten(1),
        y.expand(2, *x.shape).sum(0),
        y.as_strided((2, 2), (1, 1)),
    )


@program(_matrix)
def named_tuples_of_torchs(x: Tensor) -> Any:
    return x.max(dim=1), torch.topk(x, 2), torch.linalg.qr(x[:, :4])


@program(lambda: (Pair(_leaf(4, 6), 3),))
def a_named_tuple_in_and_out(pair: Pair) -> Pair:
    return Pair(pair.tensor.sin() * pair.number, pair.number + 1)


@program(lambda: (Pair(_leaf(4, 6), 3),), dynamic=(False,))
def a_named_tuple_through_a_checkpoint(pair: Pair) -> Any:
    def body(given: Pair) -> Pair:
        return Pair(given.tensor.sin() * given.number, given.number)

    return torch.utils.checkpoint.checkpoint(body, pair, use_reentrant=False)


@program(lambda: (Output(_leaf(4, 6), 2),))
def a_dataclass_in_and_out(given: Output) -> Output:
    return Output(given.tensor.sin(), given.tensor.shape[0])


@program(_plain, capture_dynamic_output_shape_ops=True)
def rows_that_the_data_chooses(x: Tensor) -> Tensor:
    return x.nonzero().sum(0) + x[x > 0].sum().long()


@program(_plain, capture_scalar_outputs=True)
def a_number_that_the_data_gives(x: Tensor) -> Tensor:
    return x * x.sum().item()


@program(lambda: (torch.randn(6, 8), torch.randn(6, 3)), capture_dynamic_output_shape_ops=True)
def experts_that_the_data_chooses(x: Tensor, router: Tensor) -> Tensor:
    weights, chosen = router.softmax(-1).topk(2)
    out = torch.zeros_like(x)
    for expert in range(3):
        row, column = torch.where(chosen == expert)
        out.index_add_(0, row, x[row] * weights[row, column, None])
    return out


@program(lambda: (_leaf(2, 4, 8, 8),))
def attention_that_is_computed_twice(x: Tensor) -> Any:
    def body(q: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, q, q, is_causal=True, scale=0.5)

    return torch.utils.checkpoint.checkpoint(body, x, use_reentrant=False)


@program(lambda: (_leaf(2, 4, 8, 8),))
def attention_by_chosen_kernels(x: Tensor) -> Tensor:
    with sdpa_kernel([SDPBackend.MATH]):
        exact = F.scaled_dot_product_attention(x, x, x)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], set_priority=True):
        return exact + F.scaled_dot_product_attention(x, x, x)


@program(lambda: (torch.randn(2, 8),), dynamic=(False,))
def a_scan_that_slices(x: Tensor) -> Any:
    return associative_scan(lambda left, right: left * right + right, x, dim=1, combine_mode="generic")


# From torch 2.15 on there is no graph of it: dynamo breaks off at the gradient, and leaves the rest to Python.
@program(_matrix, dynamic=(False,) if _TORCH < (2, 15) else ())
def a_gradient_inside(x: Tensor) -> Any:
    y = x.detach().requires_grad_()
    return torch.autograd.grad(y.sin().sum(), y)[0]


@program(_matrix)
def numbers_of_a_shape(x: Tensor) -> Tensor:
    rows, columns = x.shape
    return x * (rows // 2 + rows % 3 + max(rows, 3) + columns**2) + torch.sym_max(rows, 3)
