"""Kernels that a worker builds together equal those that torch builds one by one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compiler_daemon.worker.batch import Kernel, NotBatchableError, composed, link_command, shared_out

_SAMPLES = Path(__file__).parent / "build_samples.py"
_SOURCE = (
    '#include <torch/csrc/inductor/cpp_prefix.h>\nextern "C" void kernel() {}\nPyMODINIT_FUNC PyInit_kernel(void);'
)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, headers: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("builds")
    shutil.copytree(headers / "probes", folder / "cache")
    environment = os.environ | {
        "TMPDIR": str(folder),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache"),  # torch sets this for its children, too
        "TORCHINDUCTOR_COMPILE_THREADS": "2",
    }
    done = subprocess.run(
        [sys.executable, _SAMPLES, folder], env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.slow
def test_the_machine_code_of_every_kernel_is_that_of_torchs_own_build(results: dict[str, Any]) -> None:
    assert results["equal"]
    assert results["said_at_first"] == []
    assert len(results["objects"]) > 1
    for torchs, ours in results["objects"].values():
        expected, found = _instructions(torchs), _instructions(ours)
        assert {"kernel", "kernel._omp_fn.0"} <= set(expected)
        assert found == expected
        assert _exports(ours) == {"kernel", "PyInit_kernel", "inductor_cpu_integer_div_error_flag"} <= _exports(torchs)


def test_kernels_built_together_run(results: dict[str, Any]) -> None:
    assert results["alike"] == {"values": [1.0, 2.0, 3.0], "said": []}


def test_kernels_that_cannot_stand_in_one_source_are_built_by_torch(results: dict[str, Any]) -> None:
    assert results["clashing"]["values"] == [4.0, 4.0]
    assert "one by one" in results["clashing"]["said"][0]


def test_a_kernel_with_headers_of_its_own_is_built_by_torch(results: dict[str, Any]) -> None:
    assert results["including"] == {"values": [5.0, 6.0], "said": []}


def test_texts_of_assertions_name_file_and_line_as_those_of_torchs_builds_do(results: dict[str, Any]) -> None:
    assert results["placed"] == {"values": [1006.0, 2006.0], "said": []}


def test_a_kernel_that_does_not_compile_fails_as_it_does_in_torch_and_its_neighbours_live(
    results: dict[str, Any],
) -> None:
    called, neighbour, at_the_end = results["broken"]["values"]
    assert neighbour == 7.0
    assert called == at_the_end == "CppCompileError"


@pytest.mark.parametrize(
    ("line", "source", "why"),
    [
        ("{s} -shared -fPIC -o {t} -ltorch", "#include <vector>\n" + _SOURCE, "includes <vector>"),
        ("{s} -shared -fPIC -o {t} -ltorch", "#define kernel other\n" + _SOURCE, "directive define kernel"),
        ("{s} -shared -fPIC -o {t} -ltorch", 'extern "C" void kernel() {}', "no Python binding"),
        ("{s} -c -fPIC -o {t}", _SOURCE, "does not compile and link"),
        ("{s} -shared -Wl,-z,now -o {t}", _SOURCE, "tells the linker"),
        ("{s} {s} -shared -o {t}", _SOURCE, "one object from one source"),
        ("{s} -shared -o elsewhere.so", _SOURCE, "one object from one source"),
    ],
)
def test_a_build_of_another_form_is_left_to_torch(tmp_path: Path, line: str, source: str, why: str) -> None:
    path, target = tmp_path / "k.main.cpp", tmp_path / "k.main.so"
    path.write_text(source)
    with pytest.raises(NotBatchableError, match=why):
        Kernel.read(f"g++ {line.format(s=path, t=target)}", target=str(target))


def test_shares_are_of_two_or_more_and_lose_no_kernel() -> None:
    kernels = [Kernel("x" * (100 * n), f"{n}.cpp", f"{n}.so", "g++", (), ()) for n in range(1, 8)]
    for ways in (1, 2, 3, 16):
        shares = shared_out(kernels, ways)
        assert len(shares) == min(ways, 3)
        assert sorted(kernel.target for share in shares for kernel in share) == sorted(one.target for one in kernels)
        assert all(len(share) >= 2 for share in shares) or ways == 1
    assert shared_out(kernels[:1], 4) == [kernels[:1]]


def test_each_kernel_of_a_share_has_an_entry_of_its_own() -> None:
    kernels = [Kernel(_SOURCE, f"{n}.cpp", f"{n}.so", "g++", ("-fopenmp", "-O3"), ("-lgomp",)) for n in range(2)]
    for kernel in kernels:
        entry = f"PyInit_kernel_{kernel.mark}"
        assert composed(kernels).count(f"#define PyInit_kernel {entry}\n") == 1
        assert f"-Wl,--defsym=PyInit_kernel={entry}" in link_command(kernel, "o", exports="e", stand_ins="s")
    with pytest.raises(NotBatchableError, match="one mark"):
        composed([kernels[0], kernels[0]])


def test_no_name_of_a_batch_is_in_a_kernel_that_was_built_in_it(results: dict[str, Any]) -> None:
    first, *others = results["batches"]

    assert [len(batch) for batch in (first, *others)] == [3, 2, 3]
    for batch in others:
        assert {name: first[name] for name in batch} == batch


def _instructions(path: str) -> dict[str, list[str]]:
    """Return the instructions of a kernel's functions by name, without what depends on their addresses."""
    text = subprocess.run(
        ["objdump", "-d", "--no-show-raw-insn", path], capture_output=True, text=True, check=True
    ).stdout
    functions: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if head := re.match(r"^[0-9a-f]+ <(kernel)(?:_\d+)?([.\w]*)>:$", line):
            current = functions.setdefault(head[1] + head[2], [])
        elif re.match(r"^[0-9a-f]+ <", line):
            current = []
        elif found := re.match(r"^\s*[0-9a-f]+:\s+(.*)$", line):
            code = re.sub(r"\s*[<#].*", "", found[1])
            code = re.sub(r"0x[0-9a-f]+\(%rip\)", "_(%rip)", re.sub(r"\b[0-9a-f]{3,}\b", "_", code)).strip()
            if not re.match(r"((data16|cs) )*(nop|xchg +%ax,%ax)", code):
                current.append(code)
    return functions


def _exports(path: str) -> set[str]:
    text = subprocess.run(["nm", "-D", "--defined-only", path], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1] for line in text.splitlines()}
