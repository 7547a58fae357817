"""Where traces may be skipped, the client is there before torch traces for the first time, and gone when it is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.conftest import clean_environment

PROGRAM = """
import compile_client.hooks.install as client
client.arm()
import torch
import torch._dynamo.convert_frame as tracer
given = tracer._compile
at_trace = []
def backend(graph, inputs):
    at_trace.append(client._patches is not None)
    return graph.forward
def compiled():
    torch._dynamo.reset()
    return torch.compile(lambda x: x.cos(), backend=backend)(torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]
print(client._patches is not None, compiled(), at_trace)
client.uninstall()
print(compiled(), at_trace, tracer._compile.__module__, hasattr(tracer._compile, '__wrapped__'))
"""


@pytest.mark.parametrize(("skip_trace", "there"), [("1", True), ("", False)])
def test_the_client_is_there_before_the_first_trace_where_it_may_be_skipped(skip_trace: str, there: bool) -> None:
    environment = clean_environment(TORCH_COMPILE_CLIENT_SKIP_TRACE=skip_trace, TORCH_COMPILE_CLIENT_LOG="off")

    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True, env=environment
    )

    assert ended.stdout.splitlines() == [
        f"False True [{there}]",
        f"True [{there}, False] torch._dynamo.convert_frame False",
    ]
