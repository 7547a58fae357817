"""Symbolic sizes: the worker reads no text as mathematics, and no expression can grow without end."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from compile_wire.errors import MalformedError
from compile_wire.graph.spec import tensor_value
from compiler_daemon.worker.rebuild import rebuild
from tests.worker.hostile_samples import (
    CODE,
    OTHER_SOURCE,
    SOON_S,
    SOURCE,
    M,
    S,
    doubled,
    name_of_symbol,
    powers,
    refuse,
    shaped,
    symbol,
)
from tests.worker.worker_samples import TENSOR, checked, graph


def test_the_shapes_without_anything_hostile_are_rebuilt() -> None:
    rows = [["Symbol", S], ["Integer", "2"], ["Mul", 0, 1], ["Pow", 0, 1], ["FloorDiv", 3, 1], ["Add", 2, 4]]

    rebuilt = rebuild(checked(shaped(rows)))

    assert rebuilt.inputs[0].shape[0].node.hint == 22


@pytest.mark.parametrize(
    "text", [CODE, "os", "__import__", "s0; import os", "", "S.One", "lambda: 0", "9**9**9", "s0 + 1"]
)
def test_no_text_is_read_as_mathematics(text: str) -> None:
    for row in (
        ["Symbol", text],
        [text],
        [text, 0],
        ["Integer", text],
        ["Rational", text, "1"],
        ["Rational", "1", text],
        ["Float", text],
        ["Add", text],
        ["Add", 0, text],
        ["Pow", 0, text],
    ):
        refuse(shaped([["Symbol", S], row]))
    refuse(shaped([["Symbol", S]], symbols=[symbol(S), symbol(text)]))


@pytest.mark.parametrize(
    "head",
    "Lambda Function Symbol Dummy sympify parse_expr S Basic Expr Integral Sum Product Limit Derivative lambdify "
    "__class__ functions sympy torch_functions OpaqueUnaryFn_ eval BitwiseFn_bitwise_and factorial Mod.eval".split(),
)
def test_only_listed_heads_are_made(head: str) -> None:
    refuse(shaped([["Symbol", S], [head, 0]]))


@pytest.mark.parametrize(
    "row",
    [
        ["Integer"],
        ["Integer", "1", "2"],
        ["Integer", 5],
        ["Integer", "--5"],
        ["Integer", "5_0"],
        ["Integer", "\u0665"],
        ["Integer", "9" * 65],
        ["Integer", "9" * 1_000_000],
        ["Integer", "0x10"],
        ["Rational", "1"],
        ["Rational", "1", "0"],
        ["Rational", "9" * 1_000_000, "1"],
        ["Float", "nan"],
        ["Float", "inf"],
        ["Float", "0x1p5000"],
        ["Float", "0x" + "f" * 1_000_000],
        ["Symbol"],
        ["Symbol", "s12345"],
        ["Symbol", S, S],
        ["Symbol", 5],
        ["Symbol", 1.5],
        ["Not", 0],
        ["FloorDiv", 0],
        ["ExprCondPair", 0, 0],
        ["Piecewise", 0],
        ["true"],
        ["oo"],
        ["-int_oo"],
    ],
)
def test_an_expression_that_is_no_size_is_malformed(row: list[Any]) -> None:
    refuse(shaped([["Symbol", S], row]))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(powers("Pow", ["Integer", "9"], 50), id="tower"),
        pytest.param(powers("Pow", ["Symbol", S], 50), id="tower of a symbol"),
        pytest.param(powers("PowByNatural", ["Symbol", S], 50), id="natural tower"),
        pytest.param([["Integer", "9"], ["Integer", "9" * 60], ["Pow", 0, 1]], id="large exponent"),
        pytest.param([["Integer", "2"], ["Integer", "-" + "9" * 60], ["Pow", 0, 1]], id="large negative exponent"),
        pytest.param([["Integer", "9"], ["Pow", 0, 0], ["Pow", 0, 1], ["Pow", 0, 2]], id="tower upwards"),
        pytest.param([["Symbol", S], ["Integer", "2"], ["Pow", 1, 0]], id="symbol as exponent"),
        pytest.param([["Integer", "1"], ["Integer", "9" * 30], ["LShift", 0, 1]], id="long shift"),
        pytest.param([["Symbol", S], ["Integer", "1"], ["LShift", 1, 0]], id="shift by a symbol"),
        pytest.param([["Integer", "1"], ["Integer", "9" * 30], ["RShift", 0, 1]], id="long right shift"),
        pytest.param([["Integer", "9"], ["Rational", "9" * 60, "7"], ["Pow", 0, 1]], id="large root"),
        pytest.param([["Float", "0x1.8p1"], ["Float", "0x1p900"], ["FloatPow", 0, 1]], id="large float exponent"),
        pytest.param([["Symbol", S], ["Mul", *[0] * 4000]], id="long product"),
        pytest.param([["Integer", "9" * 60]] + [["Mul", row, row] for row in range(60)], id="squares"),
        pytest.param(doubled("Add", 60), id="shared sums"),
        pytest.param(doubled("Max", 60), id="shared maxima"),
        pytest.param(doubled("Mod", 60), id="shared remainders"),
        pytest.param([["Symbol", S], ["Piecewise", *[0] * 4000]], id="long choice"),
        pytest.param([["Symbol", S], ["Max", *[0] * 4000]], id="long maximum"),
        pytest.param([["Symbol", S], *([["Add", *range(row)] for row in range(1, 200)])], id="sums of all before"),
    ],
)
def test_a_few_bytes_do_not_make_an_expression_without_end(rows: list[Any]) -> None:
    refuse(shaped(rows))
    refuse(graph(expressions=rows, symbols=[symbol(S)], sources=[SOURCE]))


def test_many_arguments_are_either_refused_or_done_with_soon() -> None:
    for head in ("Max", "Min", "Add", "And", "Piecewise"):
        rows: list[Any] = [["Symbol", S], *(["Integer", str(number)] for number in range(900))]
        rows += [["FloorDiv", 0, row] for row in range(2, 600)]
        start = time.monotonic()
        with contextlib.suppress(MalformedError):
            rebuild(checked(shaped([*rows, [head, *range(901, 1100)]])))
        assert time.monotonic() - start < SOON_S


@pytest.mark.parametrize("head", ["Max", "Min"])
def test_the_greatest_of_many_expressions_is_refused_also_where_they_come_in_groups(head: str) -> None:
    rows: list[Any] = [["Symbol", S], *(["Integer", str(number)] for number in range(2, 42))]
    rows += [["FloorDiv", 0, row] for row in range(1, 41)]
    first, last = list(range(41, 61)), list(range(61, 81))

    assert f"a {head} of more than 32" in refuse(shaped([*rows, [head, *first, *last]]))
    assert f"a {head} of more than 32" in refuse(shaped([*rows, [head, *first], [head, 81, *last]]))
    rebuild(checked(shaped([*rows, [head, *first]])))


def test_a_deep_expression_is_refused_or_done_with_soon() -> None:
    rows: list[Any] = [["Symbol", S], ["Integer", "7"]]
    for number in range(400):
        rows.append([("Mod", "FloorDiv")[number % 2], len(rows) - 1 if number else 0, 1])
    start = time.monotonic()
    with contextlib.suppress(MalformedError):
        rebuild(checked(shaped(rows)))
    assert time.monotonic() - start < SOON_S


def test_symbols_do_not_stand_for_each_other_in_a_circle() -> None:
    rows: list[Any] = [["Symbol", S], ["Symbol", M], ["Add", 0, 1]]
    for here, there in ((0, 0), (1, 0), (2, 0), (1, 2), (2, 2)):
        symbols = [symbol(S, replacement=here), symbol(M, source=1, replacement=there)]

        assert "circle" in refuse(shaped(rows, symbols=symbols, sources=[SOURCE, OTHER_SOURCE]))


def test_a_symbol_that_stands_for_another_is_rebuilt() -> None:
    symbols = [symbol(S, replacement=1), symbol(M, source=1)]

    rebuilt = rebuild(checked(shaped([["Symbol", S], ["Symbol", M]], symbols=symbols, sources=[SOURCE, OTHER_SOURCE])))

    assert rebuilt.inputs[0].shape[0].node.hint == 5


def test_a_chain_of_symbols_does_not_unfold_without_end() -> None:
    by_name = {
        name_of_symbol(source): source for source in (["LocalSource", ["local_name", f"a{i}"]] for i in range(24))
    }
    names, sources = list(by_name), list(by_name.values())
    assert len(names) > 16
    rows: list[Any] = []
    symbols = []
    for number, name in enumerate(names):
        rows += [
            ["Symbol", name],
            ["Mod", len(rows), len(rows)],
            ["FloorDiv", len(rows), len(rows) + 1],
            ["Add", len(rows), len(rows) + 1, len(rows) + 2],
        ]
        symbols.append(symbol(name, source=number, replacement=len(rows) - 5 if number else -1))

    refuse(shaped(rows, symbols=symbols, sources=sources))


@pytest.mark.parametrize(("lower", "upper"), [(1, None), (None, 0), (1, 0), (1, 1), (2, None), (None, 3), (3, 3)])
def test_a_symbol_out_of_its_own_range_is_malformed(lower: int | None, upper: int | None) -> None:
    rows = [["Integer", "4"], ["Integer", "6"], ["true"], ["Symbol", S]]

    refuse(shaped(rows, symbols=[symbol(S, lower=lower, upper=upper)]))


@pytest.mark.parametrize(
    "fields",
    [
        {"hint": float("nan")},
        {"hint": float("inf")},
        {"hint": 2**64 - 1},
        {"hint": -5, "positive": True},
        {"source": -1},
    ],
)
def test_a_symbol_that_cannot_be_is_malformed(fields: dict[str, Any]) -> None:
    refuse(shaped([["Symbol", S]], symbols=[symbol(S, **fields)]))


def test_symbols_are_bounded() -> None:
    assert "more than 4096" in refuse(graph(symbols=[symbol(S)] * 5000, sources=[SOURCE]))


@pytest.mark.parametrize(
    "source",
    [
        ["ConstantSource", ["source_name", CODE]],
        ["ImportSource", ["module_name", "os').system('touch stranger') or __import__('os"]],
        ["EphemeralSource", ["desc", f">{CODE}"]],
        ["GlobalSource", ["global_name", f"x'] or {CODE} or G['x"]],
        ["LocalSource", ["local_name", f"x'] or {CODE} or L['x"]],
        ["SyntheticLocalSource", ["local_name", CODE]],
        ["RandomValueSource", ["random_call_index", CODE]],
        ["LocalSource", ["local_name", "x", "dynamism", CODE]],
        ["LocalSource", ["no_such_field", "x"]],
        ["LocalSource", ["__class__", "x"]],
        ["LocalSource", ["_name", CODE]],
        ["LocalSource", []],
        ["LocalSource", ["local_name", ["E", "TensorProperty", CODE]]],
        ["LocalSource", ["local_name", ["E", CODE, "SIZE"]]],
        ["LocalSource", ["local_name", ["f", "torch.relu"]]],
        ["LocalSource", ["local_name", ["l", "x"]]],
        ["LocalSource", ["local_name", ["T", list(tensor_value(TENSOR)[1])]]],
        [CODE, []],
        ["__class__", []],
        ["Source", []],
        ["functools", []],
        ["os.system", ["command", "touch stranger"]],
        ["is_constant_source", []],
        ["GuardBuilder", []],
    ],
)
def test_a_source_is_one_of_torchs_and_its_text_is_no_code(source: list[Any]) -> None:
    refuse(shaped([["Symbol", S]], sources=[SOURCE, source]))


@pytest.mark.parametrize(
    "source",
    [
        ["AttrSource", ["base", ["S", 0], "member", CODE]],
        ["GenericAttrSource", ["base", ["S", 0], "member", f"x') or {CODE}"]],
        ["GradSource", ["base", ["S", 0], "member", f"grad or {CODE}"]],
        ["TensorPropertySource", ["base", ["S", 0], "prop", ["E", "TensorProperty", "SIZE"], "idx", f"0] or {CODE}"]],
        ["IndexedSource", ["base", ["S", 0], "idx", f"0) or {CODE}"]],
        ["DefaultsSource", ["base", ["S", 0], "idx_key", f"'] or {CODE}", "is_kw", True]],
        ["ConstDictKeySource", ["base", ["S", 0], "index", ["t", ["S", 0]], "no", CODE]],
        ["AttrSource", ["base", CODE, "member", "x"]],
    ],
)
def test_what_a_source_is_reached_by_is_no_code(source: list[Any]) -> None:
    refuse(shaped([["Symbol", S]], sources=[SOURCE, source]))


def test_a_key_of_a_dict_may_be_any_text_for_torch_quotes_it() -> None:
    key = f"'] or {CODE} or ['"
    sources = [SOURCE, ["DictGetItemSource", ["base", ["S", 0], "index", key]]]

    rebuilt = rebuild(checked(shaped([["Symbol", S]], sources=sources, params=[["x", 1]])))

    assert repr(key) in rebuilt.gm._param_name_to_source["x"].name


def test_a_source_is_not_written_out_without_end() -> None:
    twice = [["DictGetItemSource", ["base", ["S", row], "index", ["S", row]]] for row in range(60)]
    deep: list[Any] = [SOURCE, *(["AttrSource", ["base", ["S", row], "member", "a"]] for row in range(5000))]

    for sources in ([SOURCE, *twice], deep):
        refuse(shaped([["Symbol", S]], sources=sources, params=[["x", len(sources) - 1]]))
