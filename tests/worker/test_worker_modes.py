"""A mode that is meant for GPUs costs a graph of the CPU nothing; what a program says of one graph is not carried."""

from __future__ import annotations

import warnings

import pytest
import torch

from compile_wire.graph.spec import encode_graph
from tests.worker.worker_samples import Worker, graph

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's import causes warnings of its own
    from benches.corpus.traced import Looking


def test_a_graph_of_the_mode_reduce_overhead_is_compiled(worker: Worker) -> None:
    options = torch._inductor.list_mode_options("reduce-overhead")
    assert options["triton.cudagraphs"] is True

    answer = worker.compile_whatever_its_key(encode_graph(graph(inductor=options)))

    assert answer["type"] == "done", answer


@pytest.mark.skipif(not hasattr(torch._dynamo, "override_cudagraphs"), reason="this torch has no such override")
@pytest.mark.parametrize(("mode", "override"), [(None, True), ("reduce-overhead", False), (None, None)])
def test_a_graph_that_is_to_become_a_cuda_graph_against_the_mode_is_not_carried(
    mode: str | None, override: bool | None
) -> None:
    looking = Looking(mode)

    def function(x: torch.Tensor) -> torch.Tensor:
        if override is None:
            return x.sin()
        with torch._dynamo.override_cudagraphs(fwd=override):
            return x.sin()

    torch._dynamo.reset()
    torch.compile(function, backend=looking)(torch.ones(3))

    (row,) = looking.rows
    assert (row["outcome"], "override_cudagraphs" in row["why"]) == (
        ("taken", False) if override is None else ("refused", True)
    )
