"""A worker on a machine without a GPU is asked for what needs one: it says so, and takes the next graph."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from compile_wire.graph.spec import encode_graph, tensor_value
from tests.worker.worker_samples import TENSOR, Worker, graph

needs_none = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


@needs_none
def test_a_graph_for_a_gpu_is_refused_with_a_reason_by_a_worker_without_one_which_goes_on(worker: Worker) -> None:
    on_gpu = dataclasses.replace(TENSOR, device="cuda", device_index=0)

    refused = worker.compile_whatever_its_key(encode_graph(graph(inputs=[tensor_value(on_gpu)])))
    after = worker.compile_whatever_its_key(encode_graph(graph()))

    assert refused["type"] == "refused", refused
    assert refused["reason"] in {"UNSUPPORTED", "COMPILE_ERROR"}
    assert refused["message"]
    assert not refused.get("spent")
    assert after["type"] == "done", after


def test_a_graph_of_the_mode_reduce_overhead_is_compiled(worker: Worker) -> None:
    options = torch._inductor.list_mode_options("reduce-overhead")
    assert options["triton.cudagraphs"] is True

    answer = worker.compile_whatever_its_key(encode_graph(graph(inductor=options)))

    assert answer["type"] == "done", answer
