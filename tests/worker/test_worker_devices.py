"""Graphs for devices that a worker does not have are refused in words, and torch's pool for them is no stranger."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch._functorch._aot_autograd import autograd_cache
from torch._guards import TracingContext, tracing
from torch._inductor import compile_fx
from torch._inductor.compile_worker.subproc_pool import SubprocPool
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from compile_torch.key.key_parts import full_key, gathered_parts
from compile_torch.patches import Patches
from compile_torch.settings import daemon_settings
from compile_torch.versions import torch_version
from compile_wire.errors import MalformedError
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import encode_graph, tensor_value
from compiler_daemon.worker import values
from compiler_daemon.worker.leftovers import Leftovers, process_probes
from compiler_daemon.worker.rebuild import rebuild
from tests.worker.worker_samples import OUT, TENSOR, Worker, X, captured, checked, graph, module, node

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


class _KeyKnownError(BaseException):
    """Raised to leave torch's compile. It is no `Exception`, because torch catches those."""


def rebuilt_key(data: bytes) -> str:
    """Rebuild a graph and return the key that torch, and we, have for it then; nothing is traced."""
    spec, version, keys = decode_graph(data), torch_version(), []
    assert version is not None

    def keying(original: Any) -> Any:
        def autograd_cache_key(gm: Any, inputs: Any, config: Any, *rest: Any, **named: Any) -> Any:
            config = dataclasses.replace(config, dynamic_shapes=spec.dynamic_shapes)
            found = original(gm, inputs, config, *rest, **named)[0]
            keys.append(full_key(found, gathered_parts(version, inputs)))
            raise _KeyKnownError

        return autograd_cache_key

    patches = Patches()
    patches.replace(autograd_cache, "autograd_cache_key", keying)
    rebuilt = rebuild(spec)
    try:
        with daemon_settings(), tracing(TracingContext(rebuilt.fake_mode)):
            compile_fx.compile_fx(rebuilt.gm, rebuilt.inputs)
    except _KeyKnownError:
        pass
    finally:
        patches.undo()
    (key,) = keys
    return str(key)


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_graph_for_a_gpu_that_is_not_here_is_captured_of_fake_tensors_and_rebuilt_with_its_key(
    dynamic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "_devices", lambda kind: {"cuda": 1}[kind])
    mode = FakeTensorMode(shape_env=ShapeEnv())

    def fake(device: str) -> FakeTensor:
        with mode:
            return FakeTensor(mode, torch.empty(6, 10, device="meta"), torch.device(device))

    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x).sum(0) + torch.ones(x.shape[1], device=x.device)

    with mode:
        on_gpu, on_cpu = (captured(function, fake(device), dynamic=dynamic) for device in ("cuda:0", "cpu"))

    assert on_gpu.key != on_cpu.key
    assert rebuilt_key(on_gpu.spec) == on_gpu.key
    assert rebuilt_key(on_cpu.spec) == on_cpu.key
