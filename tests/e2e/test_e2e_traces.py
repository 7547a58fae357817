"""A second process takes what the first one's dynamo traced, where every guard holds, and traces where one does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.e2e.conftest import REPOSITORY, Daemon, Lab, clean_environment

SKIP = {"TORCH_COMPILE_CLIENT_SKIP_TRACE": "1", "TORCH_COMPILE_CLIENT_EXPLAIN": "1"}
VERIFY = {"TORCH_COMPILE_CLIENT_SKIP_TRACE": "verify"}


def test_a_second_process_traces_nothing_and_has_the_same_losses_bit_for_bit(one_lab: Lab, daemon: Daemon) -> None:
    first = one_lab.run("traced.py", "3", "3", daemon=daemon, **SKIP)
    without = one_lab.run("traced.py", "3", "3", daemon=daemon)
    second = one_lab.run("traced.py", "3", "3", daemon=daemon, **SKIP)
    verified = one_lab.run("traced.py", "3", "3", daemon=daemon, **VERIFY)

    assert first.result["close"]
    assert (first.result["traced"], first.report["traces"]["recorded"]) == (1, 1)
    assert (second.result["traced"], second.report["traces"]["skipped"], second.report["hits"]) == (0, 1, 1)
    assert second.result["losses"] == first.result["losses"]
    assert (first.result["compiler"], second.result["compiler"]) == ([True, True], [False, False])
    assert (without.result["traced"], "traces" in without.report) == (1, False)
    assert (verified.result["traced"], verified.report["traces"]["verified"]) == (1, 1)
    assert verified.report["traces"]["differing"] == 0
    assert "Net.forward is not traced" in second.err
    listed = _daemon(daemon, "ls", "--kind", "trace", "--json")
    trace = json.loads(listed)["artifacts"][0]  # other tests leave theirs
    assert "trace: what dynamo made of a function" in _daemon(daemon, "show", trace["key"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "guard"),
    [
        ({"TRACED_ACTIVATION": "1"}, "G['ACTIVATION'] is builtin torch._C._nn.gelu here, and was function"),
        ({"TRACED_ATTRIBUTE": "1"}, "L['self'].activation is builtin"),
        ({"TRACED_SCALE": "2.0"}, "G['TRACED_SCALE'] == 2.0"),
        ({"TRACED_EPS": "2.0"}, "divide"),
        ({"TRACED_SHIFT": "2.0"}, "shifted"),
        ({"TRACED_GAIN": "2.0"}, "config"),
        ({"TRACED_HOOK": "1"}, "L['self']._modules['linear']"),
    ],
)
def test_what_dynamo_made_a_constant_of_and_is_another_here_is_traced_and_named(
    one_lab: Lab, daemon: Daemon, changed: dict[str, str], guard: str
) -> None:
    one_lab.run("traced.py", "4", daemon=daemon, **SKIP)
    other = one_lab.run("traced.py", "4", daemon=daemon, **SKIP, **changed)

    assert other.result["close"]
    assert other.result["traced"] == 1
    assert (other.report["traces"]["skipped"], other.report["traces"]["missed"]) == (0, 1)
    (said,) = [line for line in other.err.splitlines() if "no stored trace fits" in line]
    assert guard in said


def test_after_a_hit_a_new_shape_is_traced_as_without_it(one_lab: Lab, daemon: Daemon) -> None:
    first = one_lab.run("traced.py", "5", "5", "6", "7", daemon=daemon, **SKIP)
    second = one_lab.run("traced.py", "5", "5", "6", "7", daemon=daemon, **SKIP)

    assert second.result["close"]
    assert second.result["losses"] == first.result["losses"]
    assert (first.result["traced"], second.result["traced"]) == (2, 1)
    assert second.report["traces"]["skipped"] == 1
    assert second.result["compiler"] == [False, False, True, True]
    # Of the second shape dynamo makes a dynamic graph, there as here: the very same one.
    assert second.report["hits"] == second.report["graphs"] == 2


@pytest.mark.slow
def test_what_cannot_be_put_back_is_traced_with_its_reason(one_lab: Lab, daemon: Daemon) -> None:
    programs = ("context", "mark_dynamic", "optimizer", "ddp")
    runs = [one_lab.run("untraceable.py", *programs, daemon=daemon, **SKIP) for _ in range(2)]

    for run in runs:
        assert run.result == dict.fromkeys(programs, True)
        refused = set(run.report["traces"]["refused"])
        assert refused >= {"graph_break", "dynamic", "distributed"}
        # Of the optimizer's step: tensors are part of its graph, and a global of dynamo's is in its bytecode.
        assert refused & {"graph", "global"}
    assert "context is traced in each process (graph_break): dynamo breaks off inside a context manager" in runs[0].err


@pytest.mark.slow
def test_several_compiled_functions_of_a_process_are_all_put_back(one_lab: Lab, daemon: Daemon) -> None:
    programs = ("several", "dynamic", "fullgraph", "graph_break")  # the last one is two functions
    first = one_lab.run("untraceable.py", *programs, daemon=daemon, **SKIP)
    second = one_lab.run("untraceable.py", *programs, daemon=daemon, **SKIP)

    assert first.report["traces"]["recorded"] == second.report["traces"]["skipped"] == 5
    assert second.result == dict.fromkeys(programs, True)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["multires", "gradients", "backbones", "gpt"])
def test_a_second_process_traces_nothing_of_the_labs_trainers_and_of_a_gpt(
    one_lab: Lab, daemon: Daemon, model: str
) -> None:
    places = {"PYTHONPATH": os.pathsep.join(str(place) for place in (REPOSITORY, REPOSITORY / "proto"))}
    first = one_lab.run("untraced.py", model, "16,32", daemon=daemon, **SKIP, **places)
    second = one_lab.run("untraced.py", model, "16,32", daemon=daemon, **SKIP, **places)

    assert first.result["traced"] == first.report["traces"]["recorded"] == 2
    assert (second.result["traced"], second.report["traces"]["skipped"], second.report["hits"]) == (0, 2, 2)
    assert second.result["losses"] == first.result["losses"]


@pytest.mark.slow
def test_what_is_another_in_each_process_and_guarded_by_nobody_is_not_taken_from_another(
    one_lab: Lab, daemon: Daemon
) -> None:
    runs = [one_lab.run("unguarded.py", daemon=daemon, UNGUARDED=number, **SKIP) for number in ("1", "2", "1")]

    found = {name: [run.result[name] for run in runs] for name in runs[0].result}
    # dynamo itself walks through these sets in another order than Python, with luck the same.
    sets = {name for name in found if name.startswith("order_of_set") or name == "popped"}
    assert {name: here for name, here in found.items() if False in here and name not in sets} == {}
    assert all(f"{name} is traced in each process (hash)" in run.err for run in runs for name in sets)
    assert {"hash", "address"} <= set(runs[0].report["traces"]["refused"])
    assert runs[2].report["traces"]["skipped"] > 20


def _daemon(daemon: Daemon, *arguments: str) -> str:
    command = [sys.executable, "-m", "compiler_daemon", *arguments, "--dir", str(daemon.directory)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=clean_environment()).stdout
