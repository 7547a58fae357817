"""Graphs for devices that a worker does not have are refused in words, and torch's pool for them is no stranger."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch._inductor.compile_worker.subproc_pool import SubprocPool

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import encode_graph, tensor_value
from compiler_daemon.worker import values
from compiler_daemon.worker.leftovers import Leftovers, process_probes
from compiler_daemon.worker.rebuild import rebuild
from tests.worker.worker_samples import OUT, TENSOR, Worker, X, checked, graph, module, node

needs_none = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def on_gpu(index: int) -> Any:
    return graph(inputs=[tensor_value(dataclasses.replace(TENSOR, device="cuda", device_index=index))])


def made_on_gpu() -> Any:
    made = node("call_function", "y", "torch.zeros", 3, kwargs=["d", "device", ["dv", "cuda", None]])
    return graph(modules=[module([X, made, OUT])])


@needs_none
@pytest.mark.parametrize("spec", [on_gpu(0), made_on_gpu()], ids=["given", "made"])
def test_a_graph_for_a_gpu_is_refused_in_words_by_a_worker_without_one_which_goes_on(spec: Any, worker: Worker) -> None:
    refused = worker.compile_whatever_its_key(encode_graph(spec))
    after = worker.compile_whatever_its_key(encode_graph(graph()))

    assert (refused["type"], refused["reason"]) == ("refused", "UNSUPPORTED"), refused
    assert "cuda" in refused["message"]
    assert "no devices" in refused["message"]
    assert "spent" not in refused
    assert (after["type"], worker.pid) == ("done", worker.pid), after


def test_a_graph_for_one_gpu_more_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_devices", lambda kind: {"cuda": 2}[kind])

    rebuild(checked(on_gpu(1)))
    with pytest.raises(MalformedError, match="cuda:2, and this worker has 2 devices"):
        rebuild(checked(on_gpu(2)))


def test_the_pool_in_which_torch_compiles_kernels_for_gpus_is_nothing_that_a_graph_left() -> None:
    before = Leftovers(process_probes())
    pool = SubprocPool(1, quiesce=True)
    try:
        assert pool.submit(math.sqrt, 4.0).result(timeout=120) == 2.0
        running = before.found()
    finally:
        pool.shutdown()

    assert running == []
