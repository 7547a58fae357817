"""No text of a graph reaches a source that a worker generates: it is a word from a short list, or it is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from compile_torch.messages import MESSAGE_AT, MESSAGE_NAMES, SENTENCE, replace_messages
from compile_wire.errors import MalformedError
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import GraphSpec, NodeSpec, encode_graph, tensor_value
from compiler_daemon.worker.rebuild import rebuild
from compiler_daemon.worker.texts import check_traced
from tests.worker.worker_samples import (
    BODY,
    OUT,
    TENSOR,
    Worker,
    X,
    Y,
    all_captured,
    captured,
    checked,
    graph,
    module,
    node,
)

MESSAGES = [
    "the model's own words",
    "plain words",
    "",
    "''' + __import__('os').system('touch stranger') + r'''",
    '"); system("touch stranger"); ("',
    SENTENCE + " ",
    SENTENCE.lower(),
    ["n", 0],
    ["l", SENTENCE],
    5,
    None,
]


def nodes(*made: NodeSpec, **fields: Any) -> GraphSpec:
    return graph(modules=[module([X, *made, OUT], **fields), BODY])


def saying(operator: str, message: Any) -> NodeSpec:
    before: list[Any] = [["n", 0]] * MESSAGE_AT[operator]
    return node("call_function", "y", operator, *before, message)


def sources(worker: Worker) -> Iterator[str]:
    """Yield every file that the worker has written and that a compiler or Python could read."""
    for path in sorted((worker.folder / "cache").rglob("*")):
        if path.suffix in {".py", ".cpp", ".h", ".txt", ".json"} and path.is_file():
            yield path.read_text(errors="replace")


@pytest.mark.parametrize("operator", MESSAGE_AT)
def test_a_message_is_the_one_sentence_or_the_graph_is_refused(operator: str) -> None:
    # Whatever switches hooks off must be followed by what switches them on again.
    enabled = operator.replace("_disable", "_enable")
    after = [node("call_function", "z", enabled)] if enabled != operator else []
    rebuild(checked(nodes(saying(operator, SENTENCE), *after)))

    for message in MESSAGES:
        with pytest.raises(MalformedError, match=r"message of its own|no argument needs"):
            rebuild(checked(nodes(saying(operator, message), *after)))
        for name in MESSAGE_NAMES:
            named = node(
                "call_function", "y", operator, *[["n", 0]] * MESSAGE_AT[operator], kwargs=["d", name, message]
            )
            with pytest.raises(MalformedError, match=r"message of its own|no argument needs"):
                rebuild(checked(nodes(named, *after)))


def test_the_sentence_may_stand_in_any_source() -> None:
    assert set(SENTENCE) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ .")


def test_every_operator_that_takes_a_message_is_known_as_one() -> None:
    known = {name.removeprefix("op:").removesuffix(".default").removesuffix(".msg") for name in MESSAGE_AT}
    for schema in torch._C._jit_get_all_schemas():
        if any(argument.name == "assert_msg" for argument in schema.arguments):
            assert schema.name.replace("::", ".") in known


def asserting(x: torch.Tensor) -> torch.Tensor:
    torch._assert_async(x.sum() > -1000, "it's the model's own message")
    return x.sin()


def test_a_graph_that_asserts_is_compiled_under_its_own_key_and_says_the_sentence(worker: Worker) -> None:
    made = captured(asserting, torch.ones(3, requires_grad=True))

    answer = worker.compile(made.key, made.spec)

    assert answer["type"] == "done", answer
    assert b"model's own" not in made.spec
    written = "".join(sources(worker))
    assert SENTENCE in written
    assert "own message of" not in written


def rectified(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x)


def test_a_graph_without_messages_is_left_as_it_is() -> None:
    gm = torch.fx.symbolic_trace(rectified)
    code = gm._code

    replace_messages(gm)

    assert gm._code is code


def test_messages_of_the_graphs_inside_a_graph_are_replaced_too() -> None:
    inner = torch.fx.symbolic_trace(lambda x: torch._assert_async(x, "mine"))
    outer = torch.fx.GraphModule({"inner": inner}, torch.fx.symbolic_trace(rectified).graph)
    outer.add_module("inner", inner)

    replace_messages(outer)

    assert SENTENCE in inner.code
    assert "mine" not in inner.code


def test_a_failing_assertion_is_still_the_same_kind_of_error() -> None:
    gm = torch.fx.symbolic_trace(lambda x: torch._assert_async(x.sum() > 0, "mine"))

    with pytest.raises(RuntimeError, match="mine"):
        gm(-torch.ones(2))
    replace_messages(gm)
    with pytest.raises(RuntimeError, match=SENTENCE):
        gm(-torch.ones(2))


def test_text_that_is_computed_while_a_graph_is_traced_is_not_lowered(worker: Worker) -> None:
    """A graph may contain listed words only, but it can join them, and flex attention writes its scale into C++."""
    shape = (1, 1, 128, 16)
    made = all_captured(lambda q: flex_attention(q, q, q), torch.randn(*shape))[0]
    spec = decode_graph(made.spec)
    plain = worker.compile_whatever_its_key(encode_graph(spec))
    assert plain["type"] == "done", plain

    first = spec.modules[0]
    (at,) = (row for row, made in enumerate(first.nodes) if made.target == "hop:flex_attention")
    computed = node("call_function", "text", "operator.add", "stranger", "_1.0")
    calling = first.nodes[at]
    moved = [_later(made, at) for made in first.nodes[at + 1 :]]
    arguments = _scaled(calling.args, at)
    changed = dataclasses.replace(
        first, nodes=[*first.nodes[:at], computed, dataclasses.replace(calling, args=arguments), *moved]
    )
    answer = worker.compile_whatever_its_key(
        encode_graph(dataclasses.replace(spec, modules=[changed, *spec.modules[1:]]))
    )

    assert answer["type"] == "refused", answer
    assert answer["reason"] == "UNSUPPORTED"
    assert "stranger_1.0" in answer["message"]
    assert "stranger" not in "".join(sources(worker))


def _scaled(args: Any, row: int) -> Any:
    """Return the arguments of flex attention with the text in `row` as scale, which is the only number among them."""
    return [["n", row] if isinstance(item, float) else item for item in args]


def _later(made: NodeSpec, after: int) -> NodeSpec:
    """Return the node with its references shifted by the one node that was inserted."""

    def moved(value: Any) -> Any:
        if isinstance(value, list) and value[:1] == ["n"]:
            return ["n", value[1] + (value[1] >= after)]
        return [moved(item) for item in value] if isinstance(value, list) else value

    return dataclasses.replace(made, args=moved(made.args), kwargs=moved(made.kwargs))


def traced(function: Any, *names: str) -> torch.fx.GraphModule:
    built = torch.fx.Graph()
    made = [built.placeholder(name) for name in names]
    built.output(function(built, *made))
    return torch.fx.GraphModule(torch.nn.Module(), built)


PLACES = {
    "argument": lambda text: traced(lambda g, x: g.call_function(torch.ops.aten.gelu.default, (x, text)), "x"),
    "list": lambda text: traced(lambda g, x: g.call_function(torch.ops.aten.cat.default, ([x, text],)), "x"),
    "dict": lambda text: traced(lambda g, x: g.call_function(torch.ops.aten.cat.default, ({text: x},)), "x"),
    "slice": lambda text: traced(lambda g, x: g.call_function(torch.ops.aten.cat.default, (slice(text),)), "x"),
    "keyword": lambda text: traced(
        lambda g, x: g.call_function(torch.ops.aten.gelu.default, (x,), {"approximate": text}), "x"
    ),
    "output": lambda text: traced(lambda g, x: (x, text), "x"),
}


@pytest.mark.parametrize("place", [*PLACES, "body", "metadata"])
@pytest.mark.parametrize("text", ["stranger", "1.0", "tanh ", "'", "x" * 5000, "subgraph_0 ", "TANH"])
def test_a_traced_graph_holds_words_of_the_list_wherever_text_may_be(place: str, text: str) -> None:
    if place == "body":
        outer = traced(lambda g, x: x, "x")
        outer.add_module("body", PLACES["argument"](text))
        made = outer
    elif place == "metadata":
        made = PLACES["argument"]("tanh")
        for each in made.graph.nodes:
            each.meta["custom"] = {"note": text}
    else:
        made = PLACES[place](text)

    with pytest.raises(MalformedError, match="no word known here"):
        check_traced(made)


def test_words_of_the_list_are_lowered() -> None:
    for place, text in (
        ("argument", "tanh"),
        ("keyword", "none"),
        ("list", "repeated_subgraph0"),
        ("dict", "cpu"),
        ("list", "linalg.inv"),
    ):
        check_traced(PLACES[place](text))


@pytest.mark.parametrize("runner", ["run_and_save_rng_state", "run_with_rng_state"])
def test_an_operator_that_runs_another_names_arguments_of_that_one_and_no_others(runner: str) -> None:
    def running(name: str) -> torch.fx.GraphModule:
        target = getattr(torch._prims.rng_prims, runner)
        return traced(lambda g, x: g.call_function(target, (torch.ops.aten.gelu.default, x), {name: "none"}), "x")

    check_traced(running("approximate"))
    with pytest.raises(MalformedError, match="no word known here"):
        check_traced(running("stranger"))


MARK = "stranger"


def test_no_name_of_a_graph_comes_into_a_source(worker: Worker) -> None:
    """Senders choose names wherever the wire has them, but generated sources contain torch's own names."""
    body = module(
        [
            node("placeholder", f"{MARK}_a", f"{MARK}_a"),
            node("call_function", f"{MARK}_b", "torch.sin", ["n", 0]),
            node("output", "output", "output", ["t", ["n", 1]]),
        ],
        scalars=["d", "__name__", f"{MARK}_name"],
    )
    outer = module(
        [
            node("placeholder", f"{MARK}_x", f"{MARK}_target", source=0, type="Tensor"),
            node("get_attr", f"{MARK}_body", f"{MARK}_child"),
            node("call_function", f"{MARK}_y", "hop:invoke_subgraph", ["n", 1], "subgraph_0", ["n", 0]),
            node("call_function", f"{MARK}_z", "operator.getitem", ["n", 2], 0),
            node("get_attr", f"{MARK}_held", f"{MARK}_buffer"),
            node("call_function", f"{MARK}_sum", "operator.add", ["n", 3], ["n", 4]),
            node("output", "output", "output", ["t", ["n", 5]]),
        ],
        children=[f"{MARK}_child"],
        bodies=[1],
        tensors=[["buffer", f"{MARK}_buffer", tensor_value(dataclasses.replace(TENSOR, storage=1))]],
    )
    spec = graph(
        modules=[outer, body],
        params=[[f"{MARK}_param", 0], [f"{MARK}_buffer", 1]],
        sources=[["LocalSource", ["local_name", f"{MARK}_{name}", "is_input", True]] for name in ("local", "other")],
    )
    before = set(sources(worker))

    answer = worker.compile_whatever_its_key(encode_graph(spec))

    assert answer["type"] == "done", answer
    written = set(sources(worker)) - before
    assert written
    assert not any(MARK in text for text in written), [text for text in written if MARK in text]


@pytest.mark.parametrize(
    "meta",
    [
        ["d", "custom", ["d", "stream", 1]],
        ["d", "custom", ["d", "nested_region_config", 1]],
        ["d", "custom", ["d", "note", "words"]],
        ["d", "custom", ["d", 1, 2]],
        ["d", "custom", ["d", "_region_activation_memory_budget", "0.5"]],
        ["d", "custom", ["l", 1]],
        ["d", "ac_graph_id", "1"],
        ["d", "ac_graph_id", True],
        ["d", "partitioner_tag", "is_stranger"],
        ["d", "partitioner_tag", 5],
    ],
)
def test_metadata_says_only_what_a_compile_needs(meta: Any) -> None:
    with pytest.raises(MalformedError):
        rebuild(checked(nodes(dataclasses.replace(Y, meta=meta))))


def test_metadata_that_a_compile_needs_is_rebuilt() -> None:
    custom = ["d", "_region_activation_memory_budget", 0.5]
    meta = ["d", "custom", custom, "ac_graph_id", 3, "partitioner_tag", "is_backward"]

    rebuilt = rebuild(checked(nodes(dataclasses.replace(Y, meta=meta))))

    (called,) = (made for made in rebuilt.gm.graph.nodes if made.op == "call_function")
    assert called.meta["ac_graph_id"] == 3
