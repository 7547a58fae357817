"""A recorded trace is fitted to frames: it fits where nothing has changed, and names the guard where something has.

torch traces for real, with a backend that does not compile; the daemon's key of the graph is all that is made up.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from torch._dynamo import convert_frame
from torch.nn import functional

from compile_client.traces.entry import Trace, decode_trace, encode_trace
from compile_client.traces.errors import NotSkippedError
from compile_client.traces.load import Called, Fitting
from compile_client.traces.record import recorded_trace
from compile_torch.patches import Patches

SCALE = 0.5
ACTIVATION: Callable[..., torch.Tensor] = functional.silu


class Config:
    gain = 1.5


def shifted(x: torch.Tensor, by: float = 0.25) -> torch.Tensor:
    return x + by


def divider(eps: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def divided(x: torch.Tensor) -> torch.Tensor:
        return x / (x.abs() + eps)

    return divided


divide = divider(1.0)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.config = Config()
        self.linear = torch.nn.Linear(3, 3)
        self.other = torch.nn.Linear(3, 3)
        self.activation = torch.sigmoid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(ACTIVATION(self.other(self.linear(x))) * SCALE)
        return divide(shifted(x) * self.config.gain)


class Recorder:
    """Keeps what torch traced, and the graphs that it handed to its backend."""

    def __init__(self) -> None:
        self.traces: list[Trace | NotSkippedError] = []
        self.graphs: dict[str, Callable[..., Any]] = {}

    def backend(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.graphs[graph.meta["backend_id"]] = graph.forward
        return graph.forward

    def wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def build_guards(output: Any, code: Any, *args: Any, **kwargs: Any) -> Any:
            made = original(output, code, *args, **kwargs)
            keys: dict[str, str | NotSkippedError] = {name: f"key of {name}" for name in self.graphs}
            try:
                graph = output.tracer_output.output_graph
                trace = recorded_trace(code, graph, output.bytecode, made.guard_manager, keys, None)
                self.traces.append(decode_trace(encode_trace(trace)))
            except NotSkippedError as error:
                self.traces.append(error)
            return made

        return build_guards

    def traced(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Trace:
        """Have torch trace a function; return the trace, or raise why there is none."""
        torch._dynamo.reset()
        torch.compile(function, backend=self.backend, **options)(*arguments)
        found = self.traces[-1]
        if isinstance(found, NotSkippedError):
            raise found
        return found


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made, patches = Recorder(), Patches()
    patches.replace(convert_frame.DynamoOutput, "build_guards", made.wrap)
    yield made
    patches.undo()
    torch._dynamo.reset()


def called(function: Callable[..., Any], **local: Any) -> Called:
    return Called(function.__code__, function.__globals__, dict(local), None, None, None)


def fitting(trace: Trace, net: Net, x: torch.Tensor) -> Fitting:
    with torch._dynamo.utils.get_metrics_context(), torch._dynamo.utils.dynamo_timed("fitting"):
        return Fitting(trace, called(Net.forward, self=net, x=x))


def test_where_nothing_has_changed_the_bytecode_computes_what_the_function_does(recorder: Recorder) -> None:
    x = torch.linspace(-1, 1, 6).reshape(2, 3)
    trace = recorder.traced(Net(), x)
    net = Net()  # another one, as in another process
    names = {f"key of {name}": forward for name, forward in recorder.graphs.items()}
    guarded = fitting(trace, net, x).in_force(lambda key: names[key])
    run = types.FunctionType(guarded.code, globals())
    manager: Any = guarded.guard_manager

    assert torch.allclose(run(net, x), net(x))
    assert manager.check({"self": net, "x": x})
    assert not manager.check({"self": net, "x": torch.zeros(4, 3)})
    net.activation = torch.tanh
    assert not manager.check({"self": net, "x": x})  # torch's own guard, on the live object


def rebind(name: str, value: Any) -> Callable[[pytest.MonkeyPatch, Net], None]:
    return lambda patch, _: patch.setitem(globals(), name, value)


def tie(_: pytest.MonkeyPatch, net: Net) -> None:
    net.other.weight = net.linear.weight


def freeze(_: pytest.MonkeyPatch, net: Net) -> None:
    net.linear.weight.requires_grad_(False)


CHANGES: dict[str, tuple[Callable[[pytest.MonkeyPatch, Net], object], str]] = {
    "a global number": (rebind("SCALE", 2.0), "G['SCALE'] == 2.0"),
    "a global function": (rebind("ACTIVATION", functional.gelu), "G['ACTIVATION'] is builtin torch._C._nn.gelu here"),
    "a closure": (rebind("divide", divider(2.0)), "divide"),
    "a default": (rebind("shifted", lambda x, by=2.0: x + by), "shifted"),
    "a class's number": (lambda patch, _: patch.setattr(Config, "gain", 2.0), "config"),
    "an attribute": (
        lambda _, net: setattr(net, "activation", torch.tanh),
        "L['self'].activation is builtin torch.tanh",
    ),
    "a hook": (lambda _, net: net.linear.register_forward_hook(lambda *_: None), "hooks"),
    "a method": (lambda patch, _: patch.setattr(torch.nn.Linear, "forward", lambda _, x: x), "Linear"),
    "tied weights": (tie, "has identity"),
    "a frozen weight": (freeze, "need of a gradient"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_a_trace_depends_on_is_found_and_named(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    x = torch.linspace(-1, 1, 6).reshape(2, 3)
    trace, net = recorder.traced(Net(), x), Net()
    fitting(trace, net, x)
    apply, said = CHANGES[change]
    apply(monkeypatch, net)
    before = set(globals())

    with pytest.raises(NotSkippedError) as missed:
        fitting(trace, net, x)

    assert said in str(missed.value)
    assert set(globals()) == before  # nothing of it is left in the program


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (torch.zeros(4, 3), "has sizes [4, 3] here, [2, 3] there"),
        (torch.zeros(3, 2).T, "has strides"),
        (torch.zeros(2, 3, dtype=torch.float64), "has dtype"),
        (torch.zeros(2, 3, requires_grad=True), "need of a gradient"),
        (torch.nn.Parameter(torch.zeros(2, 3), requires_grad=False), "has type"),
        (torch.zeros(7)[1:].reshape(2, 3), "has alignment"),
    ],
)
def test_another_input_is_found_and_named(recorder: Recorder, x: torch.Tensor, said: str) -> None:
    trace = recorder.traced(Net(), torch.zeros(2, 3))

    with pytest.raises(NotSkippedError, match="L\\['x'\\]") as missed:
        fitting(trace, Net(), x)

    assert said in str(missed.value)


def test_an_input_marked_as_dynamic_is_another(recorder: Recorder) -> None:
    trace, x = recorder.traced(Net(), torch.zeros(2, 3)), torch.zeros(2, 3)
    torch._dynamo.mark_dynamic(x, 0)

    with pytest.raises(NotSkippedError, match="has marks"):
        fitting(trace, Net(), x)


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


def paired(x: torch.Tensor) -> torch.Tensor:
    pair = Pair(x.sin(), x.cos())
    return pair.first * pair.second


def test_code_of_a_named_tuple_is_found_by_its_class(recorder: Recorder) -> None:
    x = torch.linspace(0, 1, 6)
    trace = recorder.traced(paired, x)
    forward = next(iter(recorder.graphs.values()))
    with torch._dynamo.utils.get_metrics_context(), torch._dynamo.utils.dynamo_timed("fitting"):
        guarded = Fitting(trace, called(paired, x=x)).in_force(lambda _: forward)

    assert [detail for _, kind, detail in trace.installed if kind == "scope"] == [f"{__name__}:Pair"]
    assert torch.allclose(types.FunctionType(guarded.code, globals())(x), paired(x))


def in_pairs(x: torch.Tensor) -> Pair:
    return Pair(x.sin(), x.cos())


def test_a_named_tuple_that_is_returned_is_this_processs_own(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.linspace(0, 1, 6)
    trace = recorder.traced(in_pairs, x)
    forward = next(iter(recorder.graphs.values()))
    with torch._dynamo.utils.get_metrics_context(), torch._dynamo.utils.dynamo_timed("fitting"):
        guarded = Fitting(trace, called(in_pairs, x=x)).in_force(lambda _: forward)
        found = types.FunctionType(guarded.code, globals())(x)
        monkeypatch.setattr(Pair, "first", property(lambda pair: pair[1]))
        with pytest.raises(NotSkippedError, match=r"is class .*Pair .* here, and was"):
            Fitting(trace, called(in_pairs, x=x))

    assert type(found) is Pair
    assert torch.equal(found.second, x.cos())


def breaking(x: torch.Tensor) -> torch.Tensor:
    x = x * 2
    torch._dynamo.graph_break()
    x = x + 1
    torch._dynamo.graph_break()
    return x * x


def breaker(by: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    def broken(x: torch.Tensor) -> torch.Tensor:
        x = x * by
        torch._dynamo.graph_break()
        return x + by

    return broken


broken = breaker(torch.full((3,), 2.0))


def breaking_inside(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        x = x * 2
        torch._dynamo.graph_break()
        return x + 1


@pytest.mark.parametrize("function", [breaking, broken])
def test_after_a_graph_break_a_function_goes_on_in_what_this_processs_dynamo_makes(
    recorder: Recorder, function: Callable[..., Any]
) -> None:
    x = torch.linspace(0, 1, 6).reshape(2, 3)
    recorder.traced(function, x)
    trace, graph = recorder.traces[0], next(iter(recorder.graphs.values()))
    assert isinstance(trace, Trace)
    torch._dynamo.reset()
    local = {"x": x} | ({"by": function.__closure__[0].cell_contents} if function.__closure__ else {})
    with torch._dynamo.utils.get_metrics_context(), torch._dynamo.utils.dynamo_timed("fitting"):
        guarded = Fitting(trace, called(function, **local)).in_force(lambda _: graph)
    run = types.FunctionType(guarded.code, globals(), None, None, function.__closure__)

    assert [kind for _, kind, _ in trace.installed].count("resume") == 1
    assert torch.equal(run(x), function(x))


def test_a_function_that_goes_on_in_another_way_is_traced(recorder: Recorder) -> None:
    x = torch.linspace(0, 1, 6).reshape(2, 3)
    recorder.traced(breaking, x)
    trace = recorder.traces[0]
    assert isinstance(trace, Trace)
    other = [[name, kind, detail.replace('["x"]', '["x", "other"]')] for name, kind, detail in trace.installed]
    with torch._dynamo.utils.get_metrics_context(), torch._dynamo.utils.dynamo_timed("fitting"):
        fitted = Fitting(replace(trace, installed=other), called(breaking, x=x))

    with pytest.raises(NotSkippedError, match="goes on in another way"):
        fitted.in_force(lambda _: next(iter(recorder.graphs.values())))


def sized(x: torch.Tensor) -> torch.Tensor:
    return x.cos() * x.shape[0]


@pytest.mark.parametrize(
    ("function", "options", "reason"),
    [(breaking_inside, {}, "graph_break"), (sized, {"dynamic": True}, "dynamic")],
)
def test_what_another_process_could_not_take_is_refused_with_its_reason(
    recorder: Recorder, function: Callable[..., Any], options: dict[str, Any], reason: str
) -> None:
    torch._dynamo.reset()
    torch.compile(function, backend=recorder.backend, **options)(torch.zeros(4, 3))
    first = recorder.traces[0]

    assert isinstance(first, NotSkippedError)
    assert first.reason == reason
