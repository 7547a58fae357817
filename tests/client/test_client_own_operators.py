"""What the daemon's key has of operators that a program defines by itself."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from compile_client.own_operators import own_operators_digest

_numbers = itertools.count()

OPERATOR = """
import torch
from torch.library import custom_op
from {helper} import scale

@custom_op("own_operators::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return scale(x)

@twice.register_fake
def _(x):
    return torch.empty_like(x)

def backward(ctx, grad):
    return grad * 2

twice.register_autograd(backward)
"""
HELPER = """
FACTOR = 2

def scale(x):
    return x * FACTOR
"""
LIBRARY = """
import torch

library = torch.library.Library("own_library", "FRAGMENT")
if not hasattr(torch.ops.own_library, "thrice"):
    library.define("thrice(Tensor x) -> Tensor")
library.impl("thrice", lambda x: x * 3, "CompositeImplicitAutograd")
"""


def loaded(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import `text` as a module of this name, from a file in `folder`."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.py"
    file.write_text(text)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, name, module)
    spec.loader.exec_module(module)
    return module


def graph_of(target: Any) -> torch.fx.GraphModule:
    graph = torch.fx.Graph()
    graph.output(graph.call_function(target, (graph.placeholder("x"),)))
    return torch.fx.GraphModule({}, graph)


def digest(folder: Path, monkeypatch: pytest.MonkeyPatch, *, operator: str = OPERATOR, helper: str = HELPER) -> str:
    """Define the operator anew, in files of `folder`; return the digest of a graph with it."""
    name = f"own_helper_{next(_numbers)}"
    loaded(folder, name, helper, monkeypatch)
    # The name of the helper is part of the text: it is the same for all, and leads to the newest.
    monkeypatch.setitem(__import__("sys").modules, "own_helper", __import__(name))
    loaded(folder, "own_operator", operator.format(helper="own_helper"), monkeypatch)
    return own_operators_digest(graph_of(torch.ops.own_operators.twice.default))


def test_a_graph_of_torchs_operators_has_nothing_to_add() -> None:
    assert own_operators_digest(graph_of(torch.ops.aten.sin.default)) == ""
    assert own_operators_digest(graph_of(torch.ops._c10d_functional.wait_tensor)) == ""
    assert own_operators_digest(graph_of(torch.sin)) == ""


def test_the_same_operator_in_another_folder_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = digest(tmp_path / "here", monkeypatch), digest(tmp_path / "there", monkeypatch)

    assert here
    assert here == there


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [("operator", "scale(x)\n", "scale(x) + 1\n"), ("operator", "grad * 2", "grad * 3"), ("helper", "= 2", "= 3")],
)
def test_an_edit_of_the_operator_or_of_what_it_calls_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, old: str, new: str
) -> None:
    text = {"operator": OPERATOR, "helper": HELPER}[what]
    assert text.count(old) == 1

    before = digest(tmp_path, monkeypatch)
    after = digest(tmp_path, monkeypatch, **{what: text.replace(old, new)})

    assert before != after


def test_an_operator_that_is_registered_by_a_library_is_known_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = loaded(tmp_path, "own_library", LIBRARY, monkeypatch)
    before = own_operators_digest(graph_of(torch.ops.own_library.thrice.default))
    module.library._destroy()
    module = loaded(tmp_path, "own_library", LIBRARY.replace("x * 3", "x * 4"), monkeypatch)
    after = own_operators_digest(graph_of(torch.ops.own_library.thrice.default))
    module.library._destroy()

    assert before
    assert before != after


def test_an_operator_made_with_other_values_is_another() -> None:
    def made(factor: float) -> str:
        @torch.library.custom_op("own_operators::made", mutates_args=())
        def made(x: torch.Tensor) -> torch.Tensor:
            return x * factor

        return own_operators_digest(graph_of(torch.ops.own_operators.made.default))

    assert made(2.0) == made(2.0) != made(3.0)
