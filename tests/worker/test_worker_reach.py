from __future__ import annotations

import functools

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benches.corpus.ends import traced_key
from compile_torch import messages
from compile_torch.messages import replace_messages
from compile_torch.operators import name_of
from tests.worker.reach_samples import PROGRAMS, captured_graphs
from tests.worker.worker_samples import all_captured

_CASES = [(name, dynamic) for name, program in PROGRAMS.items() for dynamic in program.dynamic]


@pytest.mark.parametrize(("name", "dynamic"), _CASES)
def test_a_worker_rebuilds_the_graphs_of_plain_torch_and_traces_them(name: str, dynamic: bool) -> None:
    graphs = captured_graphs(name, dynamic=dynamic)

    assert graphs, "torch has no key for it"
    for made in graphs:
        assert traced_key(made.spec) == made.key


def test_other_kernels_of_attention_are_another_key() -> None:
    def attention(x: torch.Tensor, *ways: SDPBackend, first: bool) -> torch.Tensor:
        with sdpa_kernel(list(ways), set_priority=first):
            return torch.nn.functional.scaled_dot_product_attention(x, x, x)

    exact, flash, both = SDPBackend.MATH, SDPBackend.FLASH_ATTENTION, [SDPBackend.MATH, SDPBackend.FLASH_ATTENTION]
    keys = [
        made.key
        for ways, first in (([exact], False), ([flash], False), (both, False), (both, True), (both[::-1], True))
        for made in all_captured(functools.partial(attention, first=first), torch.randn(2, 4, 8, 8), *ways)
    ]

    assert len(set(keys)) == len(keys) == 5


def test_a_call_that_tells_a_log_of_a_use_is_taken_out_and_never_named() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    graph.call_function(torch._C._log_api_usage_once, ("'); import os",))
    graph.output((graph.call_function(torch.sin, (x,)),))
    gm = torch.fx.GraphModule(torch.nn.Module(), graph)

    replace_messages(gm)

    assert [node.op for node in gm.graph.nodes] == ["placeholder", "call_function", "output"]
    assert "usage" not in gm.code
    for use in messages.USES:
        assert name_of(getattr(torch._C, use.rpartition(".")[2])) is None


def test_a_call_whose_result_is_used_stays() -> None:
    graph = torch.fx.Graph()
    graph.output((graph.call_function(torch._C._log_api_usage_once, ("a.library",)),))
    gm = torch.fx.GraphModule(torch.nn.Module(), graph)

    replace_messages(gm)

    assert [node.op for node in gm.graph.nodes] == ["call_function", "output"]
