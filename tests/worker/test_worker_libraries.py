"""Operators of well-known libraries: which may be named, by what they are told apart, and who imports them."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from compile_torch.key.key_parts import LEFT_OUT, full_key
from compile_torch.library_operators import LIBRARIES, import_library, library_of, library_of_name
from compile_torch.operators import NAMESPACES, resolve
from compile_wire.errors import MalformedError
from compile_wire.graph.spec import encode_graph
from compiler_daemon.worker.libraries import import_named
from tests.library_packages import write_torchvision, write_transformers
from tests.worker.hostile_samples import calling
from tests.worker.worker_samples import OUT, Worker, X, Y, graph, module

REPOSITORY = Path(__file__).resolve().parents[2]

_DIGESTS = """
import sys, time
import torch, torchvision, transformers.integrations.moe as moe
from compile_torch.library_operators import LIBRARIES, library_digest
from compile_torch.operators import name_of
print(name_of(torch.ops.transformers.grouped_mm_fallback), name_of(torch.ops.torchvision.nms.default))
print(*map(library_digest, LIBRARIES.values()), sep=" ")
if "edit" in sys.argv:
    with open(moe.__file__, "a") as file:
        file.write("# a word more\\n")
    print(repr(library_digest(LIBRARIES["transformers"])), bool(library_digest(LIBRARIES["torchvision"])))
"""


def _digests(folder: Path, *arguments: str) -> list[list[str]]:
    path = os.pathsep.join(map(str, (folder, REPOSITORY, REPOSITORY / "proto")))
    done = subprocess.run(
        [sys.executable, "-c", _DIGESTS, *arguments],
        env=os.environ | {"PYTHONPATH": path, "TORCH_COMPILE_CLIENT": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return [line.split() for line in done.stdout.splitlines()]


def test_a_librarys_digest_is_that_of_its_files_and_none_once_they_are_newer_than_the_process(tmp_path: Path) -> None:
    write_torchvision(tmp_path)
    write_transformers(tmp_path, factor=2.0)
    names, first = _digests(tmp_path)
    write_transformers(tmp_path, factor=3.0)
    _, edited, (digest, other) = _digests(tmp_path, "edit")
    write_transformers(tmp_path, factor=2.0)
    _, back = _digests(tmp_path)

    assert names == ["op:transformers.grouped_mm_fallback", "op:torchvision.nms.default"]
    assert first == back
    assert first[0] != edited[0]
    assert first[1] == edited[1]
    assert (digest, other) == ("''", "True")


def test_another_digest_of_a_library_is_another_key() -> None:
    rows = [[["l", "transformers", digest]] for digest in ("one", "two")]

    assert len({full_key("torch's", {"libraries": row}) for row in ([], *rows)}) == 3
    LEFT_OUT.add("libraries")
    try:
        assert len({full_key("torch's", {"libraries": row}) for row in ([], *rows)}) == 1
    finally:
        LEFT_OUT.clear()


@pytest.mark.parametrize(
    "path",
    [
        "torchvision._roi_align_backward",
        "transformers.grouped_mm_fallback_backward",
        "transformers.integrations",
        "transformers.grouped_mm_fallback.default.other",
        "transformers::grouped_mm_fallback",
        "transformers.integrations.grouped_mm_fallback",
        "mine.grouped_mm_fallback",
        "torchvision.__class__",
        "torchvision._cuda_version",
    ],
)
def test_what_is_not_on_the_list_may_not_be_named(path: str) -> None:
    with pytest.raises(MalformedError):
        resolve(f"op:{path}")


def test_a_function_that_is_no_operator_is_of_no_library() -> None:
    assert library_of(torch.relu) is None
    assert library_of(torch.ops.aten.relu) is None
    assert library_of_name("torchvision::nms.default") is LIBRARIES["torchvision"]
    assert not NAMESPACES & set(LIBRARIES)


def test_a_graph_without_a_librarys_operator_imports_nothing() -> None:
    assert not import_named(graph(modules=[module([X, Y, OUT])]))
    assert not import_named(calling("op:aten.relu", ["n", 0]))


def test_a_library_that_cannot_be_imported_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").write_text("raise RuntimeError('it is broken')\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(MalformedError, match=r"cannot be imported by a worker .*it is broken"):
        import_library(LIBRARIES["transformers"])


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="the worker would find torchvision")
def test_a_worker_without_the_library_refuses_the_graph_and_lives_on(worker: Worker) -> None:
    named = encode_graph(calling("op:torchvision.nms", ["n", 0], ["n", 0], 0.5))
    refused = worker.compile("?", named)
    after = worker.compile_whatever_its_key(encode_graph(graph()))

    assert refused["reason"] == "UNSUPPORTED"
    assert "torchvision cannot be imported by a worker" in refused["message"]
    assert not refused.get("spent")
    assert after["type"] == "done"
