"""A real worker refuses hostile graphs, lives on, and leaves nothing in its folder."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
import torch

from compile_wire.graph.spec import GraphSpec, encode_graph
from tests.worker.hostile_samples import CODE, SOON_S, SOURCE, M, S, calling, doubled, nodes, powers, shaped, symbol
from tests.worker.worker_samples import OUT, Worker, X, Y, graph, module, node, strangers


def hostile() -> dict[str, GraphSpec]:
    """Return attacks of each kind. The body's keyword would run in a worker that does not check names."""
    guarded = {"symbols": [symbol(S), symbol(M, source=1, hint=7)], "expressions": [["Symbol", S], ["Symbol", M]]}
    with_stack = f'File "x\r{CODE}", line 1, in x\n  code'
    return {
        "function": calling("os.system", "touch stranger"),
        "builtin": calling("builtins.eval", CODE),
        "library": calling("torch.ops.load_library", "stranger"),
        "load": calling("torch.load", "stranger"),
        "method": nodes(X, node("call_method", "y", "apply_", ["n", 0], ["f", "torch.relu"]), OUT),
        "keyword": calling("torch.relu", ["n", 0], kwargs=["d", f"a={CODE}, b", 1]),
        "keyword of a body": graph(
            modules=[
                module(
                    [
                        X,
                        node("get_attr", "body", "body"),
                        node("call_function", "y", "hop:wrap", ["n", 1], ["n", 0]),
                        node("output", "output", "output", ["n", 2]),
                    ],
                    children=["body"],
                    bodies=[1],
                ),
                module(
                    [
                        node("placeholder", "a", "a"),
                        node("call_function", "b", "torch.relu", ["n", 0], kwargs=["d", f"inplace={CODE}, b", 1]),
                        node("output", "output", "output", ["t", ["n", 1]]),
                    ]
                ),
            ]
        ),
        "placeholder": nodes(dataclasses.replace(X, target=f"x={CODE}"), Y, OUT),
        "name": nodes(X, dataclasses.replace(Y, name=f"y={CODE}"), OUT),
        "stack trace": calling("torch.relu", ["n", 0], meta=["d", "stack_trace", with_stack]),
        "body": nodes(X, Y, OUT, children=[f"body\n    {CODE}"], bodies=[1]),
        "module's code": nodes(X, Y, OUT, scalars=["d", "_code", CODE]),
        "source": graph(sources=[SOURCE, ["ConstantSource", ["source_name", CODE]]], **guarded),
        "compiler": graph(inductor={"cpp.cxx": ["t", "./stranger"]}),
        "symbol": shaped([["Symbol", CODE]]),
        "tower": shaped(powers("Pow", ["Integer", "9"], 50)),
        "circle": shaped([["Symbol", S]], symbols=[symbol(S, replacement=0)]),
        "shared sums": shaped(doubled("Add", 60)),
        "state": graph(state={**graph().state, "default_dtype": "__class__"}),
        "more state": graph(state={**graph().state, "matmul_precision": ["l", ["d"]]}),
        "threads": graph(state={**graph().state, "threads": 2**40}),
        "version": graph(torch=CODE),
    }


HOSTILE = hostile()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_worker_refuses_it_and_runs_nothing(name: str, worker: Worker) -> None:
    start = time.monotonic()

    answer = worker.compile_whatever_its_key(encode_graph(HOSTILE[name]))

    assert answer["type"] == "refused"
    assert answer["reason"] in {"UNSUPPORTED", "COMPILE_ERROR"}
    assert list(strangers(worker.folder)) == []
    assert time.monotonic() - start < SOON_S


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("op:aten.histogram.bin_ct", [["n", 0]]),
        ("torch.histogram", [["n", 0], 3]),
        ("op:aten._sample_dirichlet.default", [["n", 0]]),
        ("op:aten.binomial.default", [["n", 0], ["n", 0]]),
        ("torch.binomial", [["n", 0], ["n", 0]]),
    ],
)
def test_an_operator_that_would_run_for_real_is_refused_with_its_name(
    name: str, args: list[Any], worker: Worker
) -> None:
    answer = worker.compile_whatever_its_key(encode_graph(calling(name, *args)))

    assert answer["reason"] == "UNSUPPORTED"
    assert name.replace("torch.", "aten.").removeprefix("op:").removesuffix(".default") in answer["message"]


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x80", b"garbage" * 1000, b"\x91" * 100_000], ids=range(5))
def test_a_worker_refuses_what_is_no_graph_and_lives(data: bytes, worker: Worker) -> None:
    assert worker.compile("key", data)["reason"] == "UNSUPPORTED"
    assert worker.compile("key", encode_graph(graph()))["reason"] == "KEY_MISMATCH"


def test_torch_reads_text_that_would_be_refused_as_code() -> None:
    """This shows why the rules exist: fx copies the names of keywords into source that it executes."""
    built = torch.fx.Graph()
    x = built.placeholder("x")
    built.output(built.call_function(torch.relu, (x,), {"a=print(), b": 1}))

    assert "a=print(), b = 1" in built.python_code("self").src
