"""A test plants a difference between two graphs captured from dynamo, and the explanation must begin with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import nn

from compile_torch.environment import process_environment
from compile_wire.digest import digest_of
from compile_wire.environment import environment_id
from compile_wire.graph.decode import decode_graph
from compiler_daemon.insight.explain import Candidate, Nearest, Request, differences, find_nearest
from tests.worker.worker_samples import captured


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request: a function and the way it is called."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    dynamic: bool | None = False
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    environment: Mapping[str, str] = field(default_factory=process_environment)

    def request(self) -> tuple[Request, bytes]:
        with self.around():
            spec = captured(self.function, *self.args, dynamic=self.dynamic).spec
        return Request(environment=self.environment, spec=decode_graph(spec)), spec


def wave(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) * 2.0 + 1


def higher_wave(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) * 3.0 + 1


def other_wave(x: torch.Tensor) -> torch.Tensor:
    return torch.cos(x) * 2.0 + 1


def wave_of_y(y: torch.Tensor) -> torch.Tensor:
    return torch.sin(y) * 2.0 + 1


def wave_of_view(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(x).view(x.shape[0], 2, -1)


def half_precision(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x @ x.t()


def other_half_precision(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.float16):
        return x @ x.t()


def quite_another_thing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.softmax(a @ b, -1).cumsum(0).exp().log1p()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def network(*, training: bool) -> nn.Module:
    made = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5))
    return made.train(training)


def dropout(*, training: bool) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train(training)


def deep() -> nn.Module:
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))


def environment(**changed: str) -> dict[str, str]:
    return {**process_environment(), **changed}


X = torch.ones(8, 4)
BASE = Case(function=wave, args=(X,))

PLANTED = {
    "shape": (replace(BASE, args=(torch.ones(16, 4),)), BASE, "input 0 (x): shape [16, 4], was [8, 4]"),
    "shape of four dimensions": (
        replace(BASE, args=(torch.ones(8, 3, 32, 32),)),
        replace(BASE, args=(torch.ones(16, 3, 32, 32),)),
        "input 0 (x): shape [8, 3, 32, 32], was [16, 3, 32, 32]",
    ),
    "shape that a number of the graph follows": (
        Case(function=wave_of_view, args=(torch.ones(16, 4),)),
        Case(function=wave_of_view, args=(X,)),
        "input 0 (x): shape [16, 4], was [8, 4]",
    ),
    "dtype": (replace(BASE, args=(X.double(),)), BASE, "input 0 (x): dtype float64, was float32"),
    "dtype of a whole network": (
        Case(function=deep().double(), args=(X.double(),)),
        Case(function=deep(), args=(X,)),
        "inputs 0 to 8: dtype float64, was float32",
    ),
    "stride": (replace(BASE, args=(torch.ones(4, 8).t(),)), BASE, "input 0 (x): stride [1, 8], was [4, 1]"),
    "requires_grad": (
        replace(BASE, args=(torch.ones(8, 4, requires_grad=True),)),
        BASE,
        "input 0 (x): requires_grad True, was False",
    ),
    "train mode": (
        Case(function=dropout(training=True), args=(X,)),
        Case(function=dropout(training=False), args=(X,)),
        "the module is in training mode, was in evaluation mode: "
        "torch.nn.functional.dropout has training=True, was False (node input_2)",
    ),
    "eval mode": (
        Case(function=network(training=False), args=(X,)),
        Case(function=network(training=True), args=(X,)),
        "the module is in evaluation mode, was in training mode: "
        "torch.nn.functional.batch_norm has training=False, was True (node input_2)",
    ),
    "autocast dtype in the graph": (
        Case(function=half_precision, args=(X,)),
        Case(function=other_half_precision, args=(X,)),
        "autocast dtype bfloat16, was float16 (node _enter_autocast)",
    ),
    "autocast dtype around the graph": (
        replace(BASE, around=lambda: torch.autocast("cpu", dtype=torch.bfloat16)),
        replace(BASE, around=lambda: torch.autocast("cpu", dtype=torch.float16)),
        "autocast bfloat16 on cpu, was float16 on cpu",
    ),
    "inductor option": (
        replace(BASE, around=lambda: torch._inductor.config.patch(max_autotune=True)),
        BASE,
        "inductor config max_autotune is True, was torch's default",
    ),
    "thread count": (
        replace(BASE, around=one_thread),
        BASE,
        f"threads {torch.get_num_threads() + 1}, was {torch.get_num_threads()}",
    ),
    "torch version": (
        replace(BASE, environment=environment(torch="2.13.0+cpu", torch_key="a")),
        replace(BASE, environment=environment(torch="2.11.0+cpu", torch_key="b")),
        "torch 2.13.0, was 2.11.0",
    ),
    "python version": (
        replace(BASE, environment=environment(python="cpython-311-cpython-311-x86_64-linux-gnu")),
        replace(BASE, environment=environment(python="cpython-312-cpython-312-x86_64-linux-gnu")),
        "python 3.11, was 3.12",
    ),
    "CPU flags": (
        replace(BASE, environment=environment(cpu_flags="GenuineIntel 6 143: avx2 avx512f", cpu_capability="AVX512")),
        replace(BASE, environment=environment(cpu_flags="GenuineIntel 6 143: avx2", cpu_capability="AVX2")),
        "CPU flags avx512f that the other has not",
    ),
    "dynamic flag": (
        replace(BASE, dynamic=True),
        BASE,
        "input 2 (x): shape [s77, s27] is dynamic, was [8, 4]",
    ),
    "dynamic flag taken away": (
        Case(function=wave_of_view, args=(X,)),
        Case(function=wave_of_view, args=(X,), dynamic=True),
        "input 0 (x): shape [8, 4] is static, was [s77, s27]",
    ),
    "constant": (
        replace(BASE, function=higher_wave),
        BASE,
        "constant 3.0, was 2.0: argument 1 of operator.mul (node mul)",
    ),
    "operator": (
        replace(BASE, function=other_wave),
        BASE,
        "operator torch.cos, was torch.sin (node cos)",
    ),
    "source's name": (replace(BASE, function=wave_of_y), BASE, "input 0 comes from y, was x"),
    "deterministic algorithms": (
        replace(BASE, around=deterministic),
        BASE,
        "deterministic algorithms on, was off",
    ),
    "grad mode": (replace(BASE, around=torch.no_grad), BASE, "gradients recorded (grad mode) off, was on"),
}


def nearest(case: Case, *known: Case, program: str = "train.py") -> Nearest:
    """Return the explanation of a request if the store knows the requests of `known`."""
    ours, spec = case.request()
    candidates, graphs, fields = [], {}, {}
    for number, other in enumerate(known):
        request, data = other.request()
        environment = environment_id(request.environment)
        fields[environment] = request.environment
        graphs[digest_of(data)] = request.spec
        candidates.append(
            Candidate(
                environment=environment,
                key=f"key-{number}",
                graph=digest_of(data),
                program="train.py",
                bytes=len(data),
                created=float(number),
            )
        )
    found = find_nearest(
        ours,
        candidates,
        program=program,
        environment=environment_id(ours.environment),
        size=len(spec),
        fields=fields,
        read=graphs.get,
    )
    assert found is not None
    return found


@pytest.mark.parametrize(("case", "known", "words"), PLANTED.values(), ids=PLANTED)
def test_the_first_thing_said_is_what_was_changed(case: Case, known: Case, words: str) -> None:
    stranger = Case(function=quite_another_thing, args=(torch.ones(3, 5), torch.ones(5, 3)))

    found = nearest(case, stranger, known)

    assert found.candidate.key == "key-1"
    assert found.related
    assert found.differences[0].text == words


@pytest.mark.parametrize(
    "name", ["shape", "dtype", "stride", "inductor option", "thread count", "constant", "operator", "source's name"]
)
def test_a_single_change_is_told_as_a_single_difference(name: str) -> None:
    case, known, words = PLANTED[name]

    found = differences(case.request()[0], known.request()[0])

    assert [item.text for item in found] == [words]


def test_the_same_request_differs_in_nothing() -> None:
    assert differences(BASE.request()[0], BASE.request()[0]) == []


def test_of_several_known_graphs_the_one_with_fewest_differences_is_nearest() -> None:
    two_changes = Case(function=higher_wave, args=(torch.ones(16, 4),))
    one_change = Case(function=wave, args=(torch.ones(16, 4),))

    found = nearest(BASE, two_changes, one_change, two_changes)

    assert found.candidate.key == "key-1"
    assert [item.text for item in found.differences] == ["input 0 (x): shape [8, 4], was [16, 4]"]


def test_a_graph_that_has_nothing_to_do_with_ours_is_not_called_related() -> None:
    stranger = Case(function=quite_another_thing, args=(torch.ones(3, 5), torch.ones(5, 3)))

    assert not nearest(BASE, stranger).related


def test_inputs_that_differ_alike_are_told_together() -> None:
    def add(*xs: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.sum() for x in xs])

    small = Case(function=add, args=tuple(torch.ones(4, 2 + n) for n in range(6)))
    large = Case(function=add, args=tuple(torch.ones(8, 2 + n) for n in range(6)))

    (only,) = differences(large.request()[0], small.request()[0])

    assert only.text == "inputs 0 to 5: dimension 0 is 8, was 4"
