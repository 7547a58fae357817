"""A kernel's miss is explained in words: the tests plant one difference at a time into real kernels."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest

from benches.harness.daemon import ServedDaemon
from compile_wire.digest import digest_of
from compile_wire.kernel.spec import KernelArgument, KernelSpec
from compiler_daemon.insight.explain import KernelRequest, kernel_differences
from tests.kernels.conftest import Bench, needs_triton

SPEC = KernelSpec(
    name="f", backend="cuda", arch=90, warp_size=32, source="module {}", ttir="module {}",
    options={"num_warps": 4, "arch": "sm90"}, options_digest=digest_of(b"options"), code="ab" * 32,
    arguments=(
        KernelArgument(name="x_ptr", type="*fp32", constant=None, special="divisible by 16"),
        KernelArgument(name="n", type="i32", constant=None, special=""),
        KernelArgument(name="BLOCK", type="constexpr", constant="128", special=""),
    ),
)  # fmt: skip
FIELDS = {"kind": "triton kernels", "triton": "3.7.1-0123"}


def told(spec: KernelSpec, **fields: str) -> list[str]:
    found = kernel_differences(
        KernelRequest(environment=FIELDS | fields, spec=spec), KernelRequest(environment=FIELDS, spec=SPEC)
    )
    return [difference.text for difference in found]


def argument(place: int, **changes: Any) -> KernelSpec:
    arguments = list(SPEC.arguments)
    arguments[place] = dataclasses.replace(arguments[place], **changes)
    return dataclasses.replace(SPEC, arguments=tuple(arguments))


@pytest.mark.parametrize(
    ("spec", "first"),
    [
        (dataclasses.replace(SPEC, arch=80, options={"num_warps": 4, "arch": "sm80"}), "target sm_80, was sm_90"),
        (dataclasses.replace(SPEC, options={"num_warps": 8, "arch": "sm90"}), "option num_warps 8, was 4"),
        (argument(2, constant="64"), "constant BLOCK 64, was 128"),
        (argument(0, type="*fp16"), "argument 0 (x_ptr): type *fp16, was type *fp32"),
        (argument(1, type="constexpr", constant="1"), "argument 1 (n): the constant 1, was type i32"),
        (argument(0, special=""), "argument 0 (x_ptr): nothing known of its value, was divisible by 16"),
        (argument(0, name="z_ptr"), "argument 0 (z_ptr) is new"),
    ],
)
def test_one_difference_is_told_first(spec: KernelSpec, first: str) -> None:
    assert told(spec)[0] == first
    assert told(SPEC) == []


def test_another_triton_and_changed_source_come_before_what_follows_from_them() -> None:
    both = dataclasses.replace(argument(2, constant="64"), code="cd" * 32)

    assert told(both, triton="3.8.0-4567") == [
        "triton 3.8.0-4567, was 3.7.1-0123",
        "its source, or something that it uses, was changed: digest cdcdcdcdcdcd, was abababababab",
        "constant BLOCK 64, was 128",
    ]


def explained(daemon: ServedDaemon) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", "explain", "--json", "--dir", str(daemon.directory)],
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.slow
@needs_triton
def test_planted_differences_in_real_kernels_are_named_beside_an_unrelated_one(bench: Bench) -> None:
    daemon = bench.daemon()
    bench.run("cuda:90", "vector_add", daemon=daemon)  # an unrelated kernel that is about as long
    bench.run("cuda:90", "planted", daemon=daemon, PLANTED="{}")
    first = explained(daemon)
    planted = {
        "constant BLOCK 64, was 128": {"BLOCK": 64},
        "argument 1 (y_ptr): type *fp16, was type *fp32": {"types": {"y_ptr": "*fp16"}},
        "argument 2 (n): divisible by 16, was nothing known of its value": {"aligned": [0, 1, 2]},
        "option num_warps 2, was 4": {"num_warps": 2},
        "its source, or something that it uses, was changed": {"code": "* 3"},
    }
    found: dict[str, dict[str, Any]] = {}
    for words, fields in planted.items():
        bench.run("cuda:90", "planted", daemon=daemon, PLANTED=json.dumps(fields))
        (found[words],) = explained(daemon)["graphs"]
    bench.run("cuda:80", "planted", daemon=daemon, PLANTED="{}")
    (elsewhere,) = explained(daemon)["graphs"]
    outcome = bench.run("cuda:90", "planted", daemon=daemon, PLANTED='{"BLOCK": 32}', TORCH_COMPILE_CLIENT_EXPLAIN="1")
    bench.run("cuda:90", "planted", daemon=daemon, PLANTED="{}")
    there = explained(daemon)
    bench.run("cuda:90", "planted", daemon=daemon, PLANTED="{}", DISABLE_PTXAS_OPT="1")
    (here,) = explained(daemon)["graphs"]

    (unknown,) = first["graphs"]
    assert unknown["sentence"] == "never seen before, and no other kernel called planted is known"
    assert (unknown["kind"], unknown["name"], first["kernels"]["compiled_by_daemon"]) == ("kernel", "planted", 1)
    for words, graph in found.items():
        assert graph["differences"][0]["text"].startswith(words), (words, graph)
        assert graph["name"] == "planted"
    assert elsewhere["differences"][0]["text"] == "target sm_80, was sm_90"
    assert "planted" in outcome.err
    assert "constant BLOCK 32, was" in outcome.err
    assert (there["graphs"], there["kernels"]["hits"]) == ([], 1)
    assert (here["outcome"], here["reason"]) == ("compiled_here", "not_carried")
    assert here["message"] == "kernel planted: DISABLE_PTXAS_OPT is set in this process"
