"""The words in which a person reads graphs, checks before an import, sizes and ages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from compile_wire.environment import environment_id
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import GraphSpec, ModuleSpec, encode_graph
from compile_wire.kernel.environment import KIND, KIND_FIELD
from compiler_daemon.admin.bundle.preflight import judge, reason_of
from compiler_daemon.insight.explain.words import Words
from compiler_daemon.insight.graph_text import GraphText
from compiler_daemon.text import numbers
from tests.daemon.inventory_samples import graph_of, node, tensor

PLAIN: dict[str, Any] = {"attributes": [], "scalars": ["d"], "tensors": [], "training": True}
HERE = {
    "python": "cpython-311-x", "torch": "2.13.0", "torch_key": "a", "triton": "", "system": "linux-x86_64",
    "libc": "glibc 2.36", "cpu_capability": "AVX512", "cpu_flags": "GenuineIntel 6 85: avx2", "compiler": "g++ 12",
    "toolkit": "", "driver": "", "gpu": "",
}  # fmt: skip


def spec_of(*modules: ModuleSpec, **fields: Any) -> GraphSpec:
    """Return a graph that was encoded and decoded, so that it surely has the right form."""
    spec = replace(decode_graph(graph_of()), modules=list(modules), inputs=[], params=[], **fields)
    return decode_graph(encode_graph(spec))


def module(*nodes: Any, **fields: Any) -> ModuleSpec:
    return ModuleSpec(**{**PLAIN, "nodes": list(nodes), "children": [], "bodies": [], **fields})


def line(target: str, *args: Any, op: str = "call_function", **kwargs: Any) -> str:
    """Return the code of one node that follows two placeholders."""
    pairs = [part for pair in kwargs.items() for part in pair]
    one = node(op, "out", target, args=["t", *args], kwargs=["d", *pairs])
    spec = spec_of(module(node("placeholder", "a"), node("placeholder", "b"), one))
    return GraphText(spec).code().splitlines()[-1].strip()


A, B = ["n", 0], ["n", 1]


@pytest.mark.parametrize(
    ("written", "code"),
    [
        (line("torch.matmul", A, B), "out = torch.matmul(a, b)"),
        (line("operator.add", A, 1), "out = a + 1"),
        (line("operator.imul", A, B), "out = a  # *= b, in place"),
        (line("operator.getitem", A, ["t", ["s", None, 3, None], ["e"]]), "out = a[:3, ...]"),
        (line("operator.getitem", A, 0), "out = a[0]"),
        (line("getattr", A, "shape"), "out = a.shape"),
        (line("view", A, ["l", 2, -1], op="call_method"), "out = a.view([2, -1])"),
        (line("op:aten.sum.dim_IntList", A, ["l", 0]), "out = torch.ops.aten.sum.dim_IntList(a, [0])"),
        (line("torch.zeros", 3, dtype=["dt", "float16"]), "out = torch.zeros(3, dtype=torch.float16)"),
        (line("torch.ones", device=["dv", "cuda", 1]), "out = torch.ones(device=device('cuda', 1))"),
        (line("torch.full", ["z", 2], ["c", 0.0, 1.0]), "out = torch.full((2,), 1j)"),
        (line("torch.rand", ["d", "a", None]), "out = torch.rand({'a': None})"),
        (line("torch.add", ["x", 0, "int"], ["i", "9" * 30]), f"out = torch.add(s77, {'9' * 30})"),
    ],
)
def test_nodes_are_written_as_python_would(written: str, code: str):
    assert written == code


def test_expressions_are_written_once_over_their_parts():
    expressions = [
        ["Symbol", "s0"], ["Integer", "2"], ["Mul", 1, 0], ["Add", 2, 1], ["FloorDiv", 3, 1], ["Rational", "1", "3"],
        ["Float", (0.5).hex()], ["Max", 0, 1], ["int_oo"],
    ]  # fmt: skip
    shapes = [["x", row, "int"] for row in (2, 3, 4, 7)]
    spec = spec_of(
        module(node("placeholder", "a"), tensors=[["buffer", "held", tensor(*shapes)]]),
        expressions=expressions,
        symbols=[],
    )
    assert "# buffer held: f32[2*s0, (2*s0 + 2), ((2*s0 + 2)//2), Max(s0, 2)]" in GraphText(spec).code()


def test_bodies_of_higher_order_operators_come_under_their_names():
    body = module(node("placeholder", "x"), node("call_method", "y", "relu", args=["t", ["n", 0]]))
    top = module(
        node("placeholder", "a"),
        node("get_attr", "wrap_body_0"),
        node("call_function", "out", "hop:wrap", args=["t", ["n", 1], ["n", 0]]),
        children=["wrap_body_0"],
        bodies=[1],
    )
    code = GraphText(spec_of(top, body)).code()
    assert code.startswith("def wrap_body_0(\n    x,\n):\n    y = x.relu()")
    assert "    wrap_body_0 = self.wrap_body_0\n    out = torch.ops.higher_order.wrap(wrap_body_0, a)" in code


def test_parameters_of_modules_have_the_names_that_a_program_gives_them():
    sources = [
        ["LocalSource", ["local_name", "self", "is_input", True]],
        ["AttrSource", ["base", ["S", 0], "member", "layers"]],
        ["GetItemSource", ["base", ["S", 1], "index", 0, "index_is_slice", False]],
        ["TensorPropertySource", ["base", ["S", 2], "prop", ["E", "TensorProperty", "SIZE"], "idx", 1]],
        ["NNModuleSource", ["base", ["S", 1]]],
        ["AttrSource", ["base", ["S", 0], "member", "_modules['up']"]],
    ]
    nodes = [node("placeholder", f"p{row}", source=row) for row in range(len(sources))]
    spec = replace(
        spec_of(module(*nodes), sources=sources, symbols=[]), inputs=[tensor(2, dtype="bfloat16") for _ in sources]
    )
    assert [one.source for one in GraphText(spec).inputs()] == [
        "self", "self.layers", "self.layers[0]", "self.layers[0].size()[1]", "self.layers", "self.up",
    ]  # fmt: skip
    assert GraphText(spec).inputs()[0].kind == "bf16[2]"


def test_a_graph_that_shares_its_parts_without_end_stays_short():
    expressions = [["Symbol", "s0"], *(["Add", row, row] for row in range(2000))]
    sources = [["LocalSource", ["local_name", "x"]], *(
        ["AttrSource", ["base", ["S", row], "member", "m"]] for row in range(2000)
    )]  # fmt: skip
    spec = spec_of(
        module(tensors=[["buffer", "b", tensor(["x", 2000, "int"])]]), expressions=expressions, sources=sources,
        symbols=[],
    )  # fmt: skip
    started = time.monotonic()
    assert len(GraphText(spec).code()) < 1000
    assert time.monotonic() - started < 5


def test_names_in_a_graph_cannot_steer_a_terminal():
    evil = "\x1b]0;evil\x07\x9b31m\u202e\n"
    spec = spec_of(
        module(
            node("placeholder", evil),
            node("call_function", evil, evil, args=["t", evil, ["f", evil], ["dt", evil]]),
            tensors=[["buffer", evil, tensor(2, dtype="float32")]],
        ),
        inductor={evil: evil},
        sources=[["LocalSource", ["local_name", evil]]],
        expressions=[["Symbol", evil]],
        symbols=[],
    )
    text = GraphText(spec)
    said = text.code().replace("\n", "") + "".join(text.settings()) + "".join(text.settings().values())
    assert said.isprintable()


def here(*environments: Mapping[str, str]) -> dict[Any, Mapping[str, str]]:
    return {environment_id(fields): fields for fields in environments}


def test_a_preflight_counts_and_gives_reasons_most_first():
    cuda = {**HERE, "toolkit": "cuda 13.0", "gpu": "H100", "driver": "580"}
    older = {**HERE, "torch": "2.11.0", "torch_key": "b"}
    ids = [environment_id(fields) for fields in (HERE, older, cuda)]
    found = judge([ids[0]] * 38 + [ids[1]] + [ids[2]] * 2, here(HERE, older, cuda), here(HERE))
    assert found.sentence == "38 of 41 entries fit this machine; 2 need CUDA; 1 was made with torch 2.11.0"
    assert judge(ids[:1], here(HERE), here(HERE)).sentence == "1 of 1 entry fits this machine"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"toolkit": "cuda 13.0"}, "need CUDA"),
        ({"toolkit": "hip 7.0"}, "need ROCm"),
        ({"torch": "2.11.0", "torch_key": "x"}, "were made with torch 2.11.0"),
        ({"torch_key": "x"}, "were made with another build of torch 2.13.0"),
        ({"python": "cpython-312-cpython-312-x86_64-linux-gnu"}, "were made with Python 3.12"),
        ({"libc": "\x1b[31m\x07"}, "were made with [31m"),
        ({"system": "linux-aarch64", "cpu_flags": "ARM: sve"}, "were made on linux-aarch64"),
        ({"cpu_flags": "AuthenticAMD 25 1: avx2"}, "were made for another processor (AuthenticAMD 25 1)"),
        ({"compiler": "clang 18"}, "were made with another compiler (clang 18)"),
        ({"libc": "glibc 2.31"}, "were made with glibc 2.31"),
        ({"something": "new"}, "were made where something is 'new'"),
    ],
)
def test_a_reason_names_the_weightiest_difference(changed: dict[str, str], reason: str):
    assert reason_of({**HERE, **changed}, here(HERE)) == reason


def test_reasons_are_taken_from_the_nearest_environment():
    gpu = {**HERE, "toolkit": "cuda 13.0", "gpu": "H100", "driver": "580"}
    assert reason_of({**gpu, "gpu": "A100"}, here(HERE, gpu)) == "need another GPU (A100)"
    assert reason_of({**gpu, "toolkit": "cuda 12.8"}, here(HERE, gpu)) == "were made with CUDA 12.8"
    assert reason_of({**HERE, "torch": "2.11.0"}, here(HERE, gpu)) == "were made with torch 2.11.0"
    assert reason_of(HERE, here(gpu)) == "were made with a torch for the CPU only"
    assert "cannot be judged" in reason_of(HERE, {})
    assert "triton 3.7.1, which nothing here" in reason_of({KIND_FIELD: KIND, "triton": "3.7.1-abc"}, here(HERE))


def test_sizes_durations_and_ages_are_short():
    assert [numbers.size(size) for size in (0, 999, 1000, 1_234_567, 5 * 10**9)] == [
        "0 B", "999 B", "1.0 kB", "1.2 MB", "5.0 GB",
    ]  # fmt: skip
    assert [numbers.seconds(seconds) for seconds in (0, 1.24, 43, 90, 7200, 86400 * 12)] == [
        "0 s", "1.24 s", "43.0 s", "1 min 30 s", "2 h 0 min", "12 d 0 h",
    ]  # fmt: skip
    assert [numbers.counted(number, "artifact") for number in (0, 1, 2)] == ["0 artifacts", "1 artifact", "2 artifacts"]
    assert numbers.ago(0.0, 3 * 3600 + 5.0) == "3 h ago"
    assert numbers.ago(100.0, 0.0) == "just now"
    durations = [numbers.parse_duration(text) for text in ("30d", "12h", "1.5w", "90s", "2min")]
    assert durations == [2592000, 43200, 907200, 90, 120]


def test_explaining_a_graph_that_shares_its_parts_without_end_takes_no_time():
    # Written out in full, the last of these expressions would have twelve to the power of eleven parts.
    expressions = [["Symbol", "s0"], *(["Add", *[row] * 12] for row in range(11))]
    words = Words(spec_of(module(), expressions=expressions, symbols=[]))
    started = time.monotonic()
    assert len(words.expression(11)) < 1000
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("text", "number"),
    [("20GB", 20 * 10**9), ("1.5 TiB", 3 * 2**39), ("512MiB", 2**29), ("64 kb", 64_000), ("0.5", 2**29), ("0", 0)],
)
def test_sizes_are_read_as_people_write_them(text: str, number: int) -> None:
    assert numbers.parse_size(text) == number


@pytest.mark.parametrize(
    ("text", "advice"),
    [("20G", "write 20GB or 20GiB"), ("much", "as 20GB"), ("-1GB", "as 20GB"), ("1 GB 2", "as 20GB")],
)
def test_a_size_that_is_two_things_or_none_is_refused(text: str, advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        numbers.parse_size(text)
