"""With a torch or a Python that nobody has run this with, the client stays off, says so, and torch compiles."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch._dynamo import bytecode_transformation, guards, pgo

from compile_torch.versions_traced import TRACED, unsupported_trace_reasons

_IS_TRACED = torch.__version__.startswith(tuple(f"{major}.{minor}." for major, minor in TRACED))

_COMPILES = (
    "import compile_client\nprint(compile_client.install(), torch.compile(lambda x: x + 1, backend='eager')(2))\n"
)


@pytest.mark.parametrize(
    ("strange", "said"),
    [
        ("torch.__version__ = '2.16.0'", "torch 2.16.0 is not one of the versions known (2.11 to 2.15)"),
        ("torch.__version__ = '2.10.1'", "torch 2.10.1 is not one of the versions known (2.11 to 2.15)"),
        ("torch.__version__ = 'of my own'", "torch of my own is not one of the versions known"),
        ("versions.has_no_global_lock = lambda: True", "this Python is free-threaded"),
    ],
)
def test_a_version_that_is_not_known_is_said_in_one_line_and_torch_compiles(strange: str, said: str) -> None:
    program = f"import torch\nfrom compile_torch import versions\n{strange}\n{_COMPILES}"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)

    assert ended.stdout == "False 3\n"
    (line,) = [line for line in ended.stderr.splitlines() if "the compile client stays off" in line]
    assert said in line


def test_traces_are_put_back_with_the_versions_that_were_run_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (unsupported_trace_reasons() == []) == _IS_TRACED

    monkeypatch.setattr(torch, "__version__", "2.12.1")
    assert unsupported_trace_reasons() == ["putting traces back was not run with torch 2.12.1"]


@pytest.mark.skipif(not _IS_TRACED, reason="traces are not put back here")
def test_a_function_or_value_of_dynamos_that_has_changed_is_named_and_traces_are_not_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bytecode_transformation, "unique_id", lambda name, prefix: name + prefix)
    assert unsupported_trace_reasons() == ["unique_id takes (name, prefix), expected (name, with_uuid)"]
    monkeypatch.undo()

    monkeypatch.setattr(guards, "ShapeCodeParts", pgo.FrameStateSizeEntry)
    assert unsupported_trace_reasons()[0].startswith("FrameStateSizeEntry has scalar, size, stride")
    monkeypatch.undo()

    monkeypatch.delattr(pgo, "auto_unset")
    (gone,) = unsupported_trace_reasons()
    assert gone.startswith("torch has changed")
    assert "auto_unset" in gone
