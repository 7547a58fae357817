from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compile_wire import limits
from compile_wire.digest import digest_of
from compile_wire.errors import MalformedError
from compile_wire.graph import decode as graph_check
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import (
    GraphSpec,
    TensorSpec,
    encode_graph,
    field_names,
    graph_digest,
    tensor_from,
    tensor_value,
)
from tests.wire.wire_samples import graph, graphs, module, node, symbol, tensor

FUZZER = Path(__file__).resolve().parents[2] / "tools" / "fuzz_wire.py"
SLOW_TO_MAKE = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=25)

EXPRESSIONS = [["Symbol", "s0"], ["Integer", "2"]]
SOURCES = [["LocalSource", ["local_name", "x"]]]


def refused(spec: GraphSpec) -> str:
    with pytest.raises(MalformedError) as caught:
        decode_graph(encode_graph(spec))
    return str(caught.value)


def with_input(value: Any) -> GraphSpec:
    return graph(inputs=[value], expressions=EXPRESSIONS, sources=SOURCES)


def a_tensor(**fields: Any) -> list[Any]:
    return list(tensor_value(tensor(**fields)))


@given(graphs())
@SLOW_TO_MAKE
def test_a_graph_is_read_as_it_was_written(spec: GraphSpec) -> None:
    data = encode_graph(spec)

    assert decode_graph(data) == spec
    assert encode_graph(decode_graph(data)) == data
    assert graph_digest(data) == digest_of(data)


@given(st.builds(tensor, dtype=st.text(), shape=st.lists(st.integers(0, 9))))
def test_a_tensor_is_read_from_its_value(spec: TensorSpec) -> None:
    assert tensor_from(tensor_value(spec)) == spec


@given(graphs(), st.randoms(use_true_random=False))
@SLOW_TO_MAKE
def test_a_broken_graph_is_malformed_or_a_graph(spec: GraphSpec, pick: random.Random) -> None:
    data = bytearray(encode_graph(spec))
    for _ in range(pick.choice((1, 1, 2, 8))):
        at = pick.randrange(len(data) + 1)
        data[at : at + pick.randrange(3)] = pick.randbytes(pick.randrange(3))

    with contextlib.suppress(MalformedError):
        encode_graph(decode_graph(bytes(data)))


def test_a_graph_that_is_cut_off_anywhere_is_malformed() -> None:
    nodes = [node(), node(op="call_function", name="y", args=["t", ["n", 0]]), node(op="output", name="output")]
    data = encode_graph(graph(modules=[module(nodes)], inputs=[a_tensor()], expressions=EXPRESSIONS, sources=SOURCES))
    decode_graph(data)

    for length in range(len(data)):
        with pytest.raises(MalformedError):
            decode_graph(data[:length])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_graph_or_malformed(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        decode_graph(data)


def test_the_fuzzer_finds_nothing_in_a_few_thousand_cases() -> None:
    done = subprocess.run(
        [sys.executable, str(FUZZER), "--cases", "4000", "--seed", "2"],
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    tallies = json.loads(done.stdout.splitlines()[-1])
    assert set(tallies) == {"graph", "manifest", "facts", "frames"}
    for tally in tallies.values():
        assert tally["cases"] == tally["accepted"] + tally["rejected"] == 4000
        assert tally["accepted"] > 0
        assert tally["crashes"] == 0


@pytest.mark.parametrize("name", sorted({*field_names(GraphSpec), "v"} - {"ranks", "meshes"}))
def test_every_field_of_a_graph_is_needed_and_no_other(name: str) -> None:
    fields = msgpack.unpackb(encode_graph(graph()))

    for wrong in ({key: value for key, value in fields.items() if key != name}, {**fields, name + "x": 1}):
        with pytest.raises(MalformedError):
            decode_graph(msgpack.packb(wrong))


@pytest.mark.parametrize("name", field_names(GraphSpec))
@pytest.mark.parametrize("value", [None, 5, 2.5, b"bytes", [[5]], {"a": [5]}])
def test_a_field_of_the_wrong_kind_is_malformed(name: str, value: Any) -> None:
    fields = {**msgpack.unpackb(encode_graph(graph())), name: value}

    with pytest.raises(MalformedError):
        decode_graph(msgpack.packb(fields))


@pytest.mark.parametrize("value", [None, [], 1, "v", {}, {"v": 0}, {"v": "1"}, {"v": [1]}])
def test_what_is_no_graph_is_malformed(value: Any) -> None:
    with pytest.raises(MalformedError):
        decode_graph(msgpack.packb(value))


VALUES: list[Any] = [
    [],
    [[]],
    [1],
    [None],
    [["l"]],
    ["unknown"],
    ["L"],
    {},
    {"l": 1},
    b"bytes",
    ["l", b"bytes"],
    ["l", {}],
    ["d", 1],
    ["d", "a", 1, "b"],
    ["n"],
    ["n", 0],
    ["n", -1],
    ["n", 0.0],
    ["n", True],
    ["n", "0"],
    ["n", [0]],
    ["s", 1, 2],
    ["s", 1, 2, ["n", 0]],
    ["i"],
    ["i", 5],
    ["i", ""],
    ["i", "-"],
    ["i", "--5"],
    ["i", "5-"],
    ["i", "1_000"],
    ["i", " 5"],
    ["i", "5\n"],
    ["i", "0x5"],
    ["i", "\u0665"],
    ["i", "9" * 4097],
    ["c", 1.0],
    ["c", 1, 2],
    ["c", "1.0", "2.0"],
    ["e", 1],
    ["dt"],
    ["dt", 1],
    ["dt", None],
    ["dt", ["l"]],
    ["dt", "a" * (limits.MAX_NAME_TEXT + 1)],
    ["ly", 1],
    ["mf", b"contiguous_format"],
    ["dv", "cpu"],
    ["dv", 1, 0],
    ["dv", "cpu", -1],
    ["dv", "cpu", True],
    ["dv", "cpu", 5000],
    ["dv", "cpu", "0"],
    ["f", 1],
    ["f", ["l"]],
    ["f", "a" * (limits.MAX_NAME_TEXT + 1)],
    ["x"],
    ["x", 0],
    ["x", 2, "int"],
    ["x", -1, "int"],
    ["x", True, "int"],
    ["x", 0, "str"],
    ["x", 0, []],
    ["x", 0, {}],
    ["x", [], "int"],
    ["?"],
    ["?", 1],
    ["S", 0],
    ["E", "TensorProperty"],
    ["E", "TensorProperty", 1],
    ["T"],
    ["T", []],
    ["T", {}],
    ["T", 5],
]


@pytest.mark.parametrize("value", VALUES, ids=[f"{at}-{value!r:.30}" for at, value in enumerate(VALUES)])
def test_a_malformed_value_is_refused_wherever_it_stands(value: Any) -> None:
    refused(with_input(value))
    refused(with_input(["l", ["t", value]]))
    refused(with_input(["d", "key", value]))
    refused(with_input(["d", value, "key"]))
    refused(with_input(a_tensor(item=value)))
    for place in ("args", "kwargs", "meta", "value"):
        refused(graph(modules=[module([node(**{place: value})])], expressions=EXPRESSIONS))
    refused(graph(modules=[module(scalars=value)], expressions=EXPRESSIONS))
    for place in ("state", "inductor", "functorch"):
        refused(graph(**{place: {"name": value}}))


TENSORS: list[dict[str, Any]] = [
    {"dtype": 1},
    {"dtype": "f" * 2000},
    {"device": None},
    {"device_index": -1},
    {"device_index": "0"},
    {"device_index": 2**40},
    {"shape": [2]},
    {"shape": 5, "stride": 5},
    {"shape": [-1, 3]},
    {"shape": [2**63, 3]},
    {"shape": [2.0, 3]},
    {"shape": [True, 3]},
    {"shape": ["2", 3]},
    {"shape": [["x", 0, "float"], 3]},
    {"shape": [["x", 2, "int"], 3]},
    {"shape": [["x", 0, "int", 0], 3]},
    {"shape": [["n", 0], 3]},
    {"shape": [1] * 65, "stride": [1] * 65},
    {"stride": [1, None]},
    {"offset": -1},
    {"offset": None},
    {"storage_bytes": 1.5},
    {"storage_bytes": ["x", 0, ["int"]]},
    {"requires_grad": 1},
    {"leaf": None},
    {"parameter": "yes"},
    {"view": []},
    {"inference": 0},
    {"storage": -2},
    {"storage": limits.MAX_NODES},
    {"storage": None},
]


@pytest.mark.parametrize("fields", TENSORS)
def test_a_malformed_tensor_is_refused(fields: dict[str, Any]) -> None:
    decode_graph(encode_graph(with_input(a_tensor())))

    refused(with_input(a_tensor(**fields)))
    refused(graph(modules=[module(tensors=[["buffer", "b", a_tensor(**fields)]])], expressions=EXPRESSIONS))


@pytest.mark.parametrize("row", [[], [1] * 13, [1] * 15, None, "tensor", {"dtype": "float32"}])
def test_a_tensor_of_another_length_is_refused(row: Any) -> None:
    refused(with_input(["T", row]))


@pytest.mark.parametrize(
    "fields",
    [
        {"op": "call_anything"},
        {"op": ""},
        {"op": None},
        {"op": ["output"]},
        {"name": None},
        {"name": "n" * 2000},
        {"target": 5},
        {"target": "t" * 2000},
        {"type": None},
        {"static": None},
        {"static": "s" * 2000},
        {"source": 1},
        {"source": -2},
        {"source": None},
        {"source": True},
    ],
)
def test_a_malformed_node_is_refused(fields: dict[str, Any]) -> None:
    refused(graph(modules=[module([dataclasses.replace(node(), **fields)])], sources=SOURCES))


@pytest.mark.parametrize(
    "fields",
    [
        {"attributes": [1]},
        {"attributes": "training"},
        {"attributes": ["a"] * (limits.MAX_MODULES + 1)},
        {"training": 1},
        {"children": ["a"]},
        {"children": [1], "bodies": [1]},
        {"bodies": [1]},
        {"children": ["a"], "bodies": [2]},
        {"children": ["a"], "bodies": ["1"]},
        {"children": ["a"], "bodies": [None]},
        {"tensors": [["buffer", "b"]]},
        {"tensors": [["module", "b", a_tensor()]]},
        {"tensors": [[["buffer"], "b", a_tensor()]]},
        {"tensors": [["buffer", 5, a_tensor()]]},
        {"tensors": [["buffer", "b", 5]]},
        {"tensors": [["buffer", "b", ["l"]]]},
        {"tensors": [None]},
    ],
)
def test_a_malformed_module_is_refused(fields: dict[str, Any]) -> None:
    refused(graph(modules=[module(**fields), module()]))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": 5},
        {"name": "s" * 2000},
        {"hint": None},
        {"hint": "5"},
        {"hint": ["i", "5"]},
        {"source": 1},
        {"source": -2},
        {"lower": 2},
        {"lower": -1},
        {"upper": "1"},
        {"positive": 1},
        {"replacement": 2},
        {"replacement": None},
        {"replacement": False},
    ],
)
def test_a_malformed_symbol_is_refused(fields: dict[str, Any]) -> None:
    refused(graph(symbols=[symbol(**fields)], expressions=EXPRESSIONS, sources=SOURCES))


@pytest.mark.parametrize(
    "row", [[], None, 5, [5], [["Add"]], ["Add", 0, 1], ["Add", -1], ["Add", True], ["Add", None], ["Add", [0]], "Add"]
)
def test_a_malformed_expression_is_refused(row: Any) -> None:
    refused(graph(expressions=[["Integer", "1"], row]))


@pytest.mark.parametrize(
    "row",
    [
        [],
        None,
        ["LocalSource"],
        ["LocalSource", []],
        ["LocalSource", {}],
        ["LocalSource", ["local_name"]],
        ["LocalSource", [5, "x"]],
        ["LocalSource", ["local_name", ["S", 1]]],
        ["LocalSource", ["local_name", ["S", -1]]],
        ["LocalSource", ["local_name", ["n", 0]]],
        ["LocalSource", [], []],
        [5, []],
    ],
)
def test_a_malformed_source_is_refused(row: Any) -> None:
    if row == ["LocalSource", []]:
        decode_graph(encode_graph(graph(sources=[*SOURCES, row])))
    else:
        refused(graph(sources=[*SOURCES, row]))


@pytest.mark.parametrize("row", [[], ["x"], ["x", 0, 0], [5, 0], ["x", 1], ["x", None], "x"])
def test_a_malformed_parameter_is_refused(row: Any) -> None:
    refused(graph(params=[row], sources=SOURCES))


@pytest.mark.parametrize("row", [2, -1, None, "0", 0.0, [0], True])
def test_a_guard_names_a_row(row: Any) -> None:
    refused(graph(guards=[row], expressions=EXPRESSIONS))


def test_references_lead_only_backwards() -> None:
    refused(graph(expressions=[["Add", 0, 0]]))
    refused(graph(expressions=[["Add", 1], ["Integer", "1"]]))
    refused(graph(sources=[["AttrSource", ["base", ["S", 0]]]]))
    refused(graph(modules=[module([node(args=["t", ["n", 0]]), node(name="y")])]))
    refused(graph(modules=[module([node(args=["t", ["n", 1]]), node(name="y")])]))
    refused(graph(modules=[module(children=["a"], bodies=[0])]))
    refused(graph(modules=[module(), module(children=["a"], bodies=[1]), module()]))

    decode_graph(encode_graph(graph(expressions=[["Integer", "1"], ["Add", 0, 0]])))
    decode_graph(encode_graph(graph(modules=[module([node(), node(name="y", args=["t", ["n", 0]])])])))
    decode_graph(encode_graph(graph(modules=[module(children=["a", "b"], bodies=[1, 1]), module()])))


def test_a_node_of_one_module_is_not_seen_from_another() -> None:
    refused(graph(modules=[module([node()]), module([node(args=["t", ["n", 0]])])]))
    refused(graph(modules=[module([node()], scalars=["d", "a", ["n", 0]])]))


def test_there_is_a_graph() -> None:
    assert "at least one" in refused(graph(modules=[]))


def test_depth_is_bounded() -> None:
    value: Any = 1
    for _ in range(100):
        value = ["l", value]

    assert "deeper" in refused(with_input(value))


def test_a_tensor_within_a_tensor_is_bounded_by_depth() -> None:
    value: Any = None
    for _ in range(100):
        value = a_tensor(item=value)

    assert "deeper" in refused(with_input(value))


def test_a_graph_of_too_many_bytes_is_not_written() -> None:
    with pytest.raises(MalformedError, match="bytes, more than"):
        encode_graph(graph(inputs=["a" * limits.MAX_GRAPH_BYTES]))


def test_counts_are_bounded_by_a_budget_over_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_check, "MAX_VALUES", 100)
    decode_graph(encode_graph(graph(inputs=[1] * 99)))

    assert "more than 100 values" in refused(graph(inputs=[["l", *[1] * 100]]))
    assert "more than 100 values" in refused(graph(inputs=[1] * 60, state={str(row): 1 for row in range(60)}))
    assert "more than 100 values" in refused(graph(modules=[module([node()] * 60)]))
    assert "more than 100 values" in refused(graph(expressions=[["Integer", "1"]] * 60))
    assert "more than 100 values" in refused(graph(sources=[["LocalSource", []]] * 60))


def test_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_check, "MAX_NODES", 3)
    monkeypatch.setattr(graph_check, "MAX_TABLE", 3)
    monkeypatch.setattr(graph_check, "MAX_MODULES", 3)
    expressions = [["Integer", "1"]] * 3

    refused(graph(inputs=[1] * 4))
    refused(graph(modules=[module([node()] * 4)]))
    refused(graph(modules=[module()] * 4))
    refused(graph(expressions=[["Integer", "1"]] * 4))
    refused(graph(sources=[["LocalSource", []]] * 4))
    refused(graph(params=[["x", 0]] * 4, sources=SOURCES))
    refused(graph(guards=[0] * 4, expressions=expressions))
    refused(graph(symbols=[symbol()] * 4))
    refused(graph(modules=[module(tensors=[["buffer", "b", a_tensor()]] * 4)]))


def test_settings_are_bounded() -> None:
    refused(graph(inductor={str(row): 1 for row in range(4097)}))
    refused(graph(state={"a" * 2000: 1}))


def test_a_graph_as_large_as_may_be_is_judged_in_seconds() -> None:
    wide = graph(inputs=[["l", *[0] * 1_500_000]])
    many = graph(modules=[module([node(args=["t", *[["n", 0]] * bool(row)]) for row in range(40_000)])])
    start = time.monotonic()

    decode_graph(encode_graph(wide))
    decode_graph(encode_graph(many))

    assert time.monotonic() - start < 20.0
