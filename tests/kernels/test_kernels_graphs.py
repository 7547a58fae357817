"""The user's own kernels inside a compiled graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.kernels.conftest import needs_triton

pytestmark = needs_triton


def graph_with(kernel: Any) -> torch.fx.GraphModule:
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table, triton_kernel_wrapper_mutation
    from torch._subclasses import FakeTensorMode

    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    with FakeTensorMode():
        x.meta["example_value"] = torch.empty(64)
    graph.call_function(
        triton_kernel_wrapper_mutation,
        kwargs={
            "kernel_idx": kernel_side_table.add_kernel(kernel),
            "constant_args_idx": kernel_side_table.add_constant_args({"n": 64, "BLOCK": 64}),
            "grid": [(1, 1, 1)],
            "tma_descriptor_metadata": {},
            "kwargs": {"x_ptr": x, "y_ptr": x, "out_ptr": x},
        },
    )
    graph.output((x,))
    return torch.fx.GraphModule({}, graph)


def test_a_graph_with_a_kernel_of_the_users_is_not_carried_to_a_worker() -> None:
    from benches.kernels.corpus.elementwise import vector_add
    from compile_client.graphs.capture import CannotCarryError, capture

    with pytest.raises(CannotCarryError, match="triton_kernel_wrapper_mutation"):
        capture(graph_with(vector_add), [torch.ones(64)], dynamic_shapes=False)


def test_what_an_autotuned_kernel_resets_between_launches_is_in_the_daemons_key() -> None:
    import triton

    from benches.kernels.corpus.elementwise import vector_add
    from compile_client.graphs.user_code.search import user_code_of

    def tuned(**more: Any) -> str:
        configs = [triton.Config({"BLOCK": 64}), triton.Config({"BLOCK": 128})]
        return user_code_of(graph_with(triton.autotune(configs, key=["n"], **more)(vector_add)), []).digest

    assert user_code_of(graph_with(vector_add), []).digest == tuned() == ""
    assert tuned(reset_to_zero=["out_ptr"]) == tuned(reset_to_zero=["out_ptr"]) != ""
    assert len({tuned(reset_to_zero=["out_ptr"]), tuned(restore_value=["out_ptr"]), tuned()}) == 3


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"configs_hash": "mine", "BLOCK": 64}', {"configs_hash": "mine", "BLOCK": 64}),
        (b'{"configs_hash": "another", "BLOCK": 64}', None),
        (b'{"BLOCK": 64}', None),
        (b'["mine"]', None),
        (b"no json", None),
        (b"[" * 100_000, None),
        (b'{"configs_hash": "mine", "pad": "' + b"x" * 70_000 + b'"}', None),
    ],
)
def test_a_winner_that_is_served_is_of_this_kernels_candidates_or_none(content: bytes, found: object) -> None:
    from compile_client.kernels.autotune_winners import winner

    assert winner(content, "mine") == found
