"""The worker refuses impossible values, devices, dtypes and tensors, and they cost it nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any

import pytest

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import tensor_value
from compiler_daemon.worker.rebuild import rebuild
from tests.worker.hostile_samples import CODE, SOON_S, calling, nodes, refuse
from tests.worker.worker_samples import OUT, TENSOR, X, Y, checked, graph


def test_a_node_that_does_not_fit_is_malformed() -> None:
    refuse(nodes(X, dataclasses.replace(Y, args=["l", ["n", 0]]), OUT))
    refuse(nodes(X, dataclasses.replace(Y, args="text"), OUT))
    refuse(nodes(X, dataclasses.replace(Y, kwargs=["l"]), OUT))
    refuse(calling("torch.relu", ["n", 0], kwargs=["d", 1, 2]))
    refuse(calling("torch.relu", ["n", 0], kwargs=["d", ["t", "a"], 2]))
    refuse(calling("torch.relu", ["n", 0], ["d", ["l"], 1]))
    refuse(calling("torch.relu", ["n", 0], ["d", ["n", 0], ["?", "why"]]))
    refuse(calling("torch.relu", ["n", 0], ["S", 0]))
    refuse(calling("torch.relu", ["n", 0], ["E", "TensorProperty", "SIZE"]))
    refuse(calling("torch.relu", ["n", 0], type=CODE))
    refuse(calling("torch.relu", ["n", 0], type="__class__"))
    refuse(nodes(dataclasses.replace(X, args=["t", CODE]), Y, OUT))
    refuse(nodes(dataclasses.replace(X, args=["t", 1]), Y, OUT))
    refuse(nodes(X, Y))
    refuse(nodes(OUT, X))
    refuse(nodes())
    refuse(nodes(X, X, OUT))
    refuse(graph(inputs=[]))
    refuse(graph(inputs=[tensor_value(TENSOR)] * 2))


@pytest.mark.parametrize(
    "name", ["__class__", "nn", "os", "load", "Tensor", "float32.x", "float32\n", "", "onnx", "torch.float32"]
)
def test_only_dtypes_are_dtypes(name: str) -> None:
    refuse(calling("torch.relu", ["n", 0], ["dt", name]))
    refuse(graph(inputs=[tensor_value(dataclasses.replace(TENSOR, dtype=name))]))
    refuse(graph(state={**graph().state, "x": 1}, inputs=[["dt", name]]))


@pytest.mark.parametrize("name", [CODE, "cpu:0", "cpu\n", "", "privateuseone", "__class__", "cuda;", "../cpu"])
def test_only_devices_are_devices(name: str) -> None:
    refuse(calling("torch.relu", ["n", 0], ["dv", name, None]))
    refuse(graph(inputs=[tensor_value(dataclasses.replace(TENSOR, device=name))]))


def test_only_layouts_and_formats_are_named() -> None:
    for tag in ("ly", "mf"):
        for name in ("__class__", CODE, "", "sparse_coo", "strided\n"):
            refuse(calling("torch.relu", ["n", 0], [tag, name]))


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": [2**62, 2**62]},
        {"shape": [2**63 - 1], "stride": [2**63 - 1]},
        {"offset": 2**62},
        {"storage_bytes": 2**63 - 1, "shape": [2**61], "stride": [1]},
        {"requires_grad": True, "dtype": "int64"},
        {"dtype": "quint4x2"},
        {"dtype": "bits8"},
        {"device": "cuda"},
        {"device": "mps"},
        {"shape": [0] * 64, "stride": [0] * 64},
    ],
)
def test_a_tensor_that_cannot_be_costs_nothing(fields: dict[str, Any]) -> None:
    """The tensor may be refused or accepted as metadata, but the answer comes at once and nothing is allocated."""
    start = time.monotonic()
    with contextlib.suppress(MalformedError):
        rebuild(checked(graph(inputs=[tensor_value(dataclasses.replace(TENSOR, **fields))])))
    assert time.monotonic() - start < SOON_S
