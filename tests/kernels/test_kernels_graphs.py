"""Kernels of the user's own inside a compiled graph."""

from __future__ import annotations

import pytest
import torch

from tests.kernels.conftest import needs_triton

pytestmark = needs_triton


def test_a_graph_with_a_kernel_of_the_users_is_not_carried_to_a_worker() -> None:
    from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table, triton_kernel_wrapper_mutation
    from torch._subclasses import FakeTensorMode

    from benches.kernels.corpus.elementwise import vector_add
    from compile_client.capture import CannotCarryError, capture

    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    with FakeTensorMode():
        x.meta["example_value"] = torch.empty(64)
    graph.call_function(
        triton_kernel_wrapper_mutation,
        kwargs={
            "kernel_idx": kernel_side_table.add_kernel(vector_add),
            "constant_args_idx": kernel_side_table.add_constant_args({"n": 64, "BLOCK": 64}),
            "grid": [(1, 1, 1)],
            "tma_descriptor_metadata": {},
            "kwargs": {"x_ptr": x, "y_ptr": x, "out_ptr": x},
        },
    )
    graph.output((x,))

    with pytest.raises(CannotCarryError, match="triton_kernel_wrapper_mutation"):
        capture(torch.fx.GraphModule({}, graph), [torch.ones(64)], dynamic_shapes=False)
