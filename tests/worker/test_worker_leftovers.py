"""State that a graph would leave in the worker: the graph is refused if it shows that, otherwise the worker ends."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from compile_torch.key.state import apply_state, read_state
from compile_torch.messages import SENTENCE
from compile_wire.errors import MalformedError
from compile_wire.graph.decode import decode_graph
from compile_wire.graph.spec import GraphSpec, NodeSpec, encode_graph
from compiler_daemon.worker.leftovers import Leftovers, process_probes, torch_probes
from compiler_daemon.worker.rebuild import rebuild
from tests.worker.worker_samples import OUT, Worker, X, Y, captured, checked, graph, module, node

GRAD_IN = ("torch._C._functorch._grad_increment_nesting", ())
GRAD_OUT = ("torch._C._functorch._grad_decrement_nesting", ())
VMAP_IN = ("torch._functorch.predispatch._vmap_increment_nesting", (2, "error"))
VMAP_OUT = ("torch._functorch.predispatch._vmap_decrement_nesting", ())
HOOKS_IN = ("torch._C._autograd._saved_tensors_hooks_disable", (SENTENCE,))
HOOKS_OUT = ("torch._C._autograd._saved_tensors_hooks_enable", ())
CAST_IN = ("torch.amp.autocast_mode._enter_autocast", ("cpu", ["dt", "bfloat16"], True, True))


def cast_out(row: int) -> tuple[str, tuple[Any, ...]]:
    return "torch.amp.autocast_mode._exit_autocast", (["n", row],)


def with_calls(*calls: tuple[str, tuple[Any, ...]]) -> GraphSpec:
    made: list[NodeSpec] = [node("call_function", f"c{i}", name, *args) for i, (name, args) in enumerate(calls)]
    return graph(modules=[module([X, Y, *made, OUT])])


MATCHED = [
    (GRAD_IN, GRAD_OUT),
    (VMAP_IN, VMAP_OUT),
    (VMAP_IN, GRAD_IN, GRAD_OUT, VMAP_OUT),
    (HOOKS_IN, GRAD_IN, GRAD_OUT, HOOKS_OUT),
    (CAST_IN, cast_out(2)),
    (CAST_IN, CAST_IN, cast_out(3), cast_out(2)),
    (HOOKS_IN, CAST_IN, HOOKS_OUT, cast_out(3)),
]
UNMATCHED = [
    (GRAD_IN,),
    (VMAP_IN,),
    (HOOKS_IN,),
    (CAST_IN,),
    (GRAD_OUT,),
    (VMAP_OUT,),
    (HOOKS_OUT,),
    (GRAD_OUT, GRAD_IN),
    (GRAD_IN, GRAD_IN, GRAD_OUT),
    (GRAD_IN, VMAP_OUT),
    (GRAD_IN, VMAP_IN, GRAD_OUT, VMAP_OUT),
    (CAST_IN, cast_out(0)),
    (CAST_IN, CAST_IN, cast_out(2), cast_out(3)),
    (CAST_IN, cast_out(2), cast_out(2)),
    (CAST_IN, ("torch.amp.autocast_mode._exit_autocast", ())),
]


@pytest.mark.parametrize("calls", MATCHED)
def test_what_a_graph_enters_and_leaves_again_is_rebuilt(calls: Any) -> None:
    rebuild(checked(with_calls(*calls)))


@pytest.mark.parametrize("calls", UNMATCHED)
def test_what_a_graph_enters_and_does_not_leave_is_refused(calls: Any) -> None:
    with pytest.raises(MalformedError, match=r"enter|another autocast"):
        rebuild(checked(with_calls(*calls)))


@pytest.mark.parametrize("calls", UNMATCHED[:6])
def test_that_holds_for_the_graphs_inside_a_graph(calls: Any) -> None:
    inner = [node("call_function", f"c{i}", name, *args) for i, (name, args) in enumerate(calls)]
    body = module([node("placeholder", "a", "a"), Y, *inner, node("output", "output", "output", ["t", ["n", 0]])])

    with pytest.raises(MalformedError, match="enter"):
        rebuild(checked(graph(modules=[module([X, Y, OUT], children=["body"], bodies=[1]), body])))


def _left_by(before: Leftovers, leave: Callable[[], Any], restore: Callable[[], Any]) -> list[str]:
    assert before.found() == []
    leave()
    try:
        return before.found()
    finally:
        restore()
        assert before.found() == []


def _threads() -> tuple[Callable[[], Any], Callable[[], Any]]:
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="stranger")

    def stop() -> None:
        end.set()
        thread.join()

    return thread.start, stop


def _files(folder: Path) -> tuple[Callable[[], Any], Callable[[], Any]]:
    held: list[Any] = []

    def close() -> None:
        held.pop().close()

    return lambda: held.append((folder / "stranger").open("w")), close


def test_every_kind_of_state_that_is_left_is_found(tmp_path: Path) -> None:
    watched = Leftovers({**process_probes(), **torch_probes()})
    c = torch._C
    mode = torch.overrides.TorchFunctionMode()
    dispatch = torch.utils._python_dispatch.TorchDispatchMode()
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)
    here, inference, order = os.getcwd(), torch.inference_mode(), c._get_sdp_priority_order()
    handle: list[Any] = []
    ways: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "functorch's stack": (c._functorch._grad_increment_nesting, c._functorch._grad_decrement_nesting),
        "functorch's leave to change inputs": (
            lambda: c._functorch.set_inplace_requires_grad_allowed(True),
            lambda: c._functorch.set_inplace_requires_grad_allowed(False),
        ),
        "autocast": (torch.autocast_increment_nesting, torch.autocast_decrement_nesting),
        "saved tensors' hooks": (
            lambda: c._autograd._saved_tensors_hooks_disable("x"),
            c._autograd._saved_tensors_hooks_enable,
        ),
        "function modes": (mode.__enter__, lambda: mode.__exit__(None, None, None)),
        "dispatch modes": (dispatch.__enter__, lambda: dispatch.__exit__(None, None, None)),
        "forward derivatives": (lambda: c._set_fwd_grad_enabled(False), lambda: c._set_fwd_grad_enabled(True)),
        "inference mode": (inference.__enter__, lambda: inference.__exit__(None, None, None)),
        "hooks of all modules": (
            lambda: handle.append(torch.nn.modules.module.register_module_forward_hook(lambda *_: None)),
            lambda: handle.pop().remove(),
        ),
        "attention's kernels": (
            lambda: c._set_sdp_priority_order([0, 1, 2, 3, 4]),
            lambda: c._set_sdp_priority_order(order),
        ),
        "anomaly mode": (lambda: torch.set_anomaly_enabled(True), lambda: torch.set_anomaly_enabled(False)),
        "environment variables": (
            lambda: os.environ.__setitem__("STRANGER", "1"),
            lambda: os.environ.__delitem__("STRANGER"),
        ),
        "working directory": (lambda: os.chdir(tmp_path), lambda: os.chdir(here)),
        "warnings' filters": (lambda: warnings.simplefilter("ignore"), lambda: warnings.filters.pop(0)),  # type: ignore[attr-defined]
        "threads": _threads(),
        "open files": _files(tmp_path),
    }
    unseen = watched.watched - set(ways) - {"autograd's threads and views", "functionalization"}
    assert unseen == {"dispatch keys"}

    for name, (leave, restore) in ways.items():
        assert any(each.startswith(name) for each in _left_by(watched, leave, restore)), name
    assert "saved tensors' hooks" in _left_by(watched, hooks.__enter__, lambda: hooks.__exit__(None, None, None))


def test_a_state_that_torch_cannot_even_tell_is_another_one() -> None:
    told = ["fine"]
    before = Leftovers({"it": lambda: told[0]})
    told.clear()

    assert before.found() == ["it"]


LEAVES = {
    "leave to change inputs": (("torch._C._functorch.set_inplace_requires_grad_allowed", (True,)),),
    "attention's kernels": (
        ("torch.nn.attention._backend_from_string", ("MATH",)),
        ("torch.nn.attention._sdpa_kernel", (["l", ["n", 2]], True)),
    ),
}


@pytest.mark.parametrize("name", LEAVES)
def test_a_worker_in_which_a_graph_left_something_answers_and_ends(name: str, tmp_path: Path, headers: Path) -> None:
    worker = Worker(tmp_path, headers)
    try:
        answer = worker.compile_whatever_its_key(encode_graph(with_calls(*LEAVES[name])))

        assert answer["spent"] is True, answer
        with pytest.raises(AssertionError, match="a graph left behind"):
            worker.compile("?", encode_graph(graph()))
    finally:
        worker.end()


def in_half(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return x @ x


def differentiated(x: torch.Tensor) -> torch.Tensor:
    return torch.func.grad(lambda y: y.sin().sum())(x) + torch.func.vmap(torch.cos)(x)


def without_gradient(x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        y = x * 2
    return x + y


@pytest.mark.parametrize("function", [in_half, differentiated, without_gradient, torch.sin])
def test_dynamos_own_graphs_leave_nothing(function: Callable[..., Any], worker: Worker) -> None:
    made = captured(function, torch.randn(4, 4, requires_grad=True))

    answer = worker.compile(made.key, made.spec)

    assert answer["type"] == "done", answer
    assert "spent" not in answer, (worker.folder / "log").read_text()[-500:]


def _alternatives() -> dict[str, dict[str, Any]]:
    """Return, for each setting that a trainer may bring, another value than a worker begins with."""
    plain = graph().state
    products = ["l", "none", "none", "none", "tf32", "tf32", "tf32"]
    found: dict[str, dict[str, Any]] = {
        "default_dtype": {"default_dtype": "float64"},
        "threads": {"threads": 1},
        "dynamo": {"dynamo": ["d", "allow_empty_graphs", True]},
        # set_float32_matmul_precision("high"), and what it sets besides
        "matmul_precision": {"matmul_precision": "high", "fp32_precision": [*products, "tf32", "none", "none"]},
        # torch.backends.cuda.matmul.fp32_precision = "tf32"
        "fp32_precision": {"matmul_precision": "mixed", "fp32_precision": [*products, "none", "none", "none"]},
        # torch.backends.cudnn.allow_tf32 = False
        "cudnn_tf32": {"cudnn_tf32": False, "fp32_precision": ["l", *["none"] * 9]},
    }
    for name, value in plain.items():
        if name in found:
            continue
        if isinstance(value, bool):
            found[name] = {name: not value}
        elif name in {"cudnn", "sdp"}:
            assert isinstance(value, list)
            found[name] = {name: ["l", *(not flag for flag in value[1:])]}
        elif name == "autocast":
            assert isinstance(value, list)
            found[name] = {name: ["d"]}
            for device, said in zip(value[1::2], value[2::2], strict=True):
                found[name][name] += [device, ["l", True, "bfloat16"] if device == "cpu" else said]
    return found


# Refused: inference mode. A list of symbols has tests of its own.
_NOT_TRIED = {"inference", "constants"}


@pytest.mark.parametrize("name", sorted(set(graph().state) - _NOT_TRIED))
def test_a_setting_that_a_graph_brings_is_taken_back_and_the_next_graph_has_its_key(name: str, worker: Worker) -> None:
    state = {**graph().state, **_alternatives()[name]}

    answer = worker.compile_whatever_its_key(encode_graph(graph(state=state)))
    plain = captured(torch.sin, torch.randn(4, 4, requires_grad=True))
    after = worker.compile(plain.key, plain.spec)

    assert (answer["type"], after["type"]) == ("done", "done"), (answer, after)
    assert "spent" not in answer, (worker.folder / "log").read_text()[-500:]
    assert "spent" not in after


PRECISIONS: dict[str, Callable[[], Any]] = {
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "high and back": lambda: (
        torch.set_float32_matmul_precision("high"),
        torch.set_float32_matmul_precision("highest"),
    ),
    "allow_tf32": lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
    "cudnn.allow_tf32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "of one operation": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "of a backend": lambda: torch._C._set_fp32_precision_setter("mkldnn", "all", "bf16"),
    "of everything": lambda: setattr(torch.backends, "fp32_precision", "tf32"),
}


@pytest.mark.parametrize("name", PRECISIONS)
def test_however_a_program_chooses_the_precision_of_float32_its_graphs_are_compiled(name: str, worker: Worker) -> None:
    before = read_state()
    PRECISIONS[name]()
    try:
        chosen = captured(torch.sin, torch.randn(4, 4, requires_grad=True))
    finally:
        apply_state(before)
    plain = captured(torch.sin, torch.randn(4, 4, requires_grad=True))

    answers = [worker.compile(each.key, each.spec) for each in (chosen, plain, chosen)]

    assert read_state() == before
    assert chosen.key != plain.key
    assert [answer["type"] for answer in answers] == ["done"] * 3, answers
    assert not any("spent" in answer for answer in answers)


def test_a_graph_compiled_under_autocast_leaves_a_worker_that_goes_on(worker: Worker) -> None:
    linear = torch.nn.Linear(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = captured(lambda x: linear(x).sum(), torch.ones(4, 4))

    answer = worker.compile(made.key, made.spec)

    assert answer["type"] == "done", answer
    assert "spent" not in answer, (worker.folder / "log").read_text()[-500:]


def test_the_thread_of_torchs_progress_bar_is_no_strangers(worker: Worker) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed: torch makes no progress bar then")
    made = captured(lambda x: x.sin().sum(), torch.ones(4, 4))

    answer = worker.compile(made.key, made.spec)

    assert answer["type"] == "done", answer
    assert "spent" not in answer, (worker.folder / "log").read_text()[-500:]


def test_what_a_worker_has_open_in_its_own_folder_is_its_compilers(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    own.mkdir()
    other.mkdir()
    with (own / "header.lock").open("w"):
        before = Leftovers(process_probes(own))
    with (own / "header.hpp").open("w"):
        assert before.found() == []
    with Path(torch.__file__).open():
        assert before.found() == [], "a thread of torch's imports something"
    with (other / "stranger").open("w") as file:
        assert before.found() == [f"open files ({file.name})"]
    assert before.found() == []


def test_the_settings_of_one_graph_are_not_the_next_ones(worker: Worker) -> None:
    state = {**graph().state, "default_dtype": "float64", "threads": 1, "deterministic": True, "grad": False}

    changed = worker.compile_whatever_its_key(encode_graph(graph(state=state)))
    after = worker.compile_whatever_its_key(encode_graph(graph()))

    assert (changed["type"], after["type"]) == ("done", "done")
    assert "spent" not in changed
    assert "spent" not in after


def _smooth(x: torch.Tensor, beta: float) -> torch.Tensor:
    return torch.nn.functional.smooth_l1_loss(x, torch.zeros_like(x), beta=beta, reduction="none")


def test_a_graph_that_torch_gives_up_to_make_constants_of_its_numbers_is_refused_each_time(worker: Worker) -> None:
    given_up = captured(_smooth, torch.ones(6, 5), 0.25, dynamic=True)

    first, again = (worker.compile(given_up.key, given_up.spec) for _ in range(2))

    assert first["reason"] == again["reason"] == "TRACED_AGAIN"
    assert "constants of some of its numbers" in first["message"]
    assert first["message"] == again["message"]


def test_what_torch_traces_then_is_compiled_with_them_as_constants_and_noted_for_no_other_graph(worker: Worker) -> None:
    given_up = captured(_smooth, torch.ones(6, 5), 0.25, dynamic=True)
    floats = [symbol.name for symbol in decode_graph(given_up.spec).symbols if isinstance(symbol.hint, float)]
    traced_again = captured(_smooth, torch.ones(6, 5), 0.25, dynamic=True, constants=floats)

    made = worker.compile(traced_again.key, traced_again.spec)
    refused = worker.compile(given_up.key, given_up.spec)
    made_again = worker.compile(traced_again.key, traced_again.spec)

    assert given_up.key != traced_again.key
    assert made["type"] == made_again["type"] == "done"
    assert "spent" not in made
    assert refused["reason"] == "TRACED_AGAIN"


@pytest.mark.parametrize(
    "constants", [["l", "s0"], ["l", 1], ["l", "zf0; import os"], ["d"], None, ["l", *["zf0"] * 4096]]
)
def test_only_symbols_of_floats_may_be_named_as_constants(worker: Worker, constants: Any) -> None:
    made = captured(_smooth, torch.ones(6, 5), 0.25, dynamic=True)
    spec = decode_graph(made.spec)

    answer = worker.compile(made.key, encode_graph(replace(spec, state=spec.state | {"constants": constants})))

    assert answer["reason"] in {"UNSUPPORTED", "MALFORMED"}
    assert "constant" in answer["message"]
    assert "gives it up" not in answer["message"]
