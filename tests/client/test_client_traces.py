"""What is recorded of a trace: names of what has no other, sources as data, the key, and bytes read strictly."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo import config as dynamo_config
from torch._dynamo.hooks import Hooks
from torch._dynamo.source import (
    AttrSource,
    DictGetItemSource,
    GetItemSource,
    GlobalSource,
    LocalSource,
    RandomValueSource,
)
from torch._functorch import config as functorch_config
from torch._inductor import config as inductor_config
from torch.nn import functional

from compile_client.traces.bytecode import names_of, read, written
from compile_client.traces.entry import Trace, decode_trace, encode_trace
from compile_client.traces.errors import NotSkippedError
from compile_client.traces.facts import differing_fact, tensor_facts
from compile_client.traces.guards import Recorded
from compile_client.traces.key import trace_key, why_not
from compile_client.traces.names import Names
from compile_client.traces.objects import live_objects, placed
from compile_client.traces.values import Reader, Table
from compile_torch.versions import torch_version
from compile_wire.errors import MalformedError

INDUCTOR: Any = torch._TorchCompileInductorWrapper("default", None, None)  # type: ignore[no-untyped-call] # torch's


def made(*, scale: float = 2.0, eps: float = 1.0, shift: float = 0.5) -> Callable[..., float]:
    """Return a function that differs in a default, in a closure, or in nothing."""

    def inner(x: float, by: float = shift) -> float:
        return x * scale + eps + by

    return inner


class Base:
    limit = 3

    def method(self) -> int:
        return self.limit


class Derived(Base):
    @classmethod
    def named(cls) -> str:
        return cls.__name__


def name(value: Any) -> str:
    return Names().of(value, "here")


@pytest.mark.parametrize("changed", [{"scale": 3.0}, {"eps": 2.0}, {"shift": 1.0}])
def test_a_function_has_another_name_where_a_default_or_a_closure_holds_another_number(
    changed: dict[str, float],
) -> None:
    assert name(made()) == name(made())
    assert name(made()) != name(made(**changed))


def nested(depth: int, number: float) -> Callable[[], object]:
    inner: Any = number if depth == 0 else nested(depth - 1, number)
    return lambda: inner


def test_a_difference_deep_in_closures_is_another_name_and_the_deepest_are_refused() -> None:
    assert name(nested(5, 1.0)) != name(nested(5, 2.0))
    with pytest.raises(NotSkippedError, match="too deep"):
        name(nested(30, 1.0))


def test_a_function_that_names_itself_has_a_name() -> None:
    def again(number: int) -> int:
        return again(number - 1) if number else 0

    assert name(again).startswith("function tests.client")


def test_a_functions_name_says_how_dynamo_was_told_to_treat_it() -> None:
    function = made()
    before = name(function)
    torch.compiler.allow_in_graph(function)  # type: ignore[no-untyped-call] # torch's

    assert name(function) != before


def test_a_class_has_another_name_where_a_base_has_another_method_or_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    before = name(Derived)
    monkeypatch.setattr(Base, "limit", 4)
    limited = name(Derived)
    monkeypatch.setattr(Base, "method", lambda self: self.limit + 1)

    assert len({before, limited, name(Derived)}) == 3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (torch, "module torch"),
        (functional.gelu, "builtin torch._C._nn.gelu"),
        (torch.sigmoid, "builtin torch.sigmoid"),
        (len, "builtin builtins.len"),
        (tuple.__new__, "slot builtins.tuple.__new__"),
        (torch.Tensor.add, "slot torch._C.TensorBase.add"),
        (torch.ops.aten.add.Tensor, "operator aten.add.Tensor"),
        (None, "None"),
        (torch.float32, "torch.float32"),
        (type(None), "class builtins.NoneType"),
    ],
)
def test_what_is_found_by_its_name_is_named_by_it(value: Any, said: str) -> None:
    assert name(value).startswith(said)


@pytest.mark.parametrize("value", [torch.zeros(1), object(), Derived().method, types.ModuleType("other"), [1].append])
def test_what_has_no_name_is_refused(value: Any) -> None:
    with pytest.raises(NotSkippedError) as refused:
        name(value)

    assert refused.value.reason == "identity"


def test_sources_come_back_from_data_with_this_processs_globals() -> None:
    source = DictGetItemSource(AttrSource(GlobalSource("__builtins_dict___7"), "part"), ("a", 1))
    table = Table({"__builtins_dict___7": "@0"})
    number = table.source(source)
    back = Reader(table.rows, {"@0": "__builtins_dict___12"}).source(number)

    assert back == DictGetItemSource(AttrSource(GlobalSource("__builtins_dict___12"), "part"), ("a", 1))
    assert Reader(table.rows, {"@0": "__builtins_dict___7"}).source(number).name == source.name


def test_a_source_that_means_nothing_elsewhere_is_refused() -> None:
    with pytest.raises(NotSkippedError, match="RandomValueSource"):
        Table({}).source(RandomValueSource(0))
    with pytest.raises(NotSkippedError, match="not carried"):
        Table({}).source(GetItemSource(LocalSource("x"), object()))


@pytest.mark.parametrize(
    "row", [["Popen", []], ["LocalSource", [["__class__", 1]]], ["AttrSource", [["base", ["source", 5]]]]]
)
def test_a_table_that_names_anything_else_than_sources_is_refused(row: list[Any]) -> None:
    with pytest.raises(MalformedError):
        Reader([row], {})


def test_bytecode_comes_back_in_the_originals_file_with_other_globals() -> None:
    code = compile("@1 if 0 else __compiled(1)".replace("@1", "x"), "/home/somebody/train.py", "eval")
    data, _ = written(code, {"__compiled": "@0"})
    back = read(data, {"@0": "__other"}, made().__code__)

    assert b"somebody" not in data
    assert {"__other", "x"} == names_of(back)
    assert back.co_filename == __file__


def with_constant(value: object) -> types.CodeType:
    code = made().__code__
    return code.replace(co_consts=(*code.co_consts, value))


def test_an_object_among_the_constants_is_found_again_by_its_place_and_name(monkeypatch: pytest.MonkeyPatch) -> None:
    data, objects = written(with_constant(Derived.named), {})
    places = [placed(value, Names()) for value in objects]
    back = read(data, {}, made().__code__, live_objects(places, Names()))

    assert places[0][:2] == [__name__, "Derived.named"]
    assert back.co_consts[-1] == Derived.named
    monkeypatch.setattr(Base, "limit", 4)
    with pytest.raises(NotSkippedError, match=r"Derived\.named, which its bytecode holds, is another here"):
        live_objects(places, Names())


@pytest.mark.parametrize("value", [torch.zeros(1), made(), Derived().method, ("\0object", 0)])
def test_an_object_among_the_constants_that_has_no_place_is_refused(value: object) -> None:
    with pytest.raises(NotSkippedError) as refused:
        [placed(one, Names()) for one in written(with_constant(value), {})[1]]

    assert refused.value.reason == "bytecode"


def test_a_trace_is_read_back_whole_or_not_at_all() -> None:
    trace = Trace(
        function="f", bytecode=b"code", objects=[], installed=[["@0", "graph", "akey"]], imports=[["a", "b"]],
        guards=Recorded(rows=[], guards=[], ordered=[], sizes=[]), identities=[], tree=["root"], tensors=[], inlined=[],
        sizes=[],
    )  # fmt: skip
    data = encode_trace(trace)

    assert decode_trace(data) == trace
    assert trace.graphs == ["akey"]
    for damaged in (data[:-1], data.replace(b"\xa4tree", b"\xa4tres"), b"\x80", data + b"\0"):
        with pytest.raises(MalformedError):
            decode_trace(damaged)


def tied(*, same: bool) -> list[tuple[int, torch.Tensor]]:
    first = torch.nn.Parameter(torch.zeros(2, 3))
    return [(0, first), (1, first if same else torch.nn.Parameter(torch.zeros(2, 3)))]


def test_two_parameters_that_are_one_are_told_from_two() -> None:
    then, now = tensor_facts(tied(same=False)), tensor_facts(tied(same=True))

    assert differing_fact(then[1], tensor_facts(tied(same=False))[1]) == ""
    assert differing_fact(then[1], now[1]).startswith("identity 0 here, 1 there")


def key(function: Any = made, scope: str = "here") -> str:
    version = torch_version()
    assert version is not None
    return trace_key(function.__code__, {"__name__": scope}, INDUCTOR, version, one_graph=False)


def other_lines(scale: float = 2.0, eps: float = 1.0, shift: float = 0.5) -> float:
    return scale + eps + shift


def test_the_key_has_the_code_the_module_and_all_settings_in_it() -> None:
    found = {key(), key(scope="there"), key(other_lines)}
    with dynamo_config.patch(assume_static_by_default=False):
        found.add(key())
    with inductor_config.patch(max_autotune=True):
        found.add(key())
    with functorch_config.patch(donated_buffer=False):
        found.add(key())
    with torch.no_grad():
        found.add(key())

    assert len(found) == 7
    assert key() in found


def test_what_dynamo_reads_without_a_guard_forbids_skipping() -> None:
    def reason(*, compiler: Any = INDUCTOR, hooks: Hooks | None = None) -> str:
        found = why_not(hooks or Hooks(), compiler, export=False, package=None)
        return found[0] if found else ""

    assert reason() == ""
    assert reason(compiler=lambda gm, _: gm) == "backend"
    assert reason(hooks=Hooks(guard_filter_fn=lambda guards: [True for _ in guards])) == "hooks"
    with torch.compiler.set_stance("eager_on_recompile"):
        assert reason() == "stance"
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert reason() == "hooks"
    handle.remove()
    with torch.autograd.graph.saved_tensors_hooks(functools.partial(torch.mul, 1), torch.neg):
        assert reason() == "hooks"
    with dynamo_config.patch(compiled_autograd=True):
        assert reason() == "compiled_autograd"
    with torch.device("cpu"):
        assert reason() == "modes"
    assert reason() == ""
