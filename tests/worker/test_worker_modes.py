"""A mode that is meant for GPUs costs a graph of the CPU nothing."""

from __future__ import annotations

import torch

from compile_wire.graph.spec import encode_graph
from tests.worker.worker_samples import Worker, graph


def test_a_graph_of_the_mode_reduce_overhead_is_compiled(worker: Worker) -> None:
    options = torch._inductor.list_mode_options("reduce-overhead")
    assert options["triton.cudagraphs"] is True

    answer = worker.compile_whatever_its_key(encode_graph(graph(inductor=options)))

    assert answer["type"] == "done", answer
