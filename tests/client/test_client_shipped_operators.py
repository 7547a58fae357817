"""An operator of a known library is the program's own as soon as the program has put something into it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.library_packages import write_torchvision, write_transformers

REPOSITORY = Path(__file__).resolve().parents[2]

_SCRIPT = """
import functools, json, os, sys, traceback
import torch
from compile_client.graphs.user_code import registrations
registrations.watch()
import torchvision, transformers.integrations.moe
from compile_client import operator_version
from compile_client.graphs.capture import CannotCarryError, capture
from compile_client.graphs.user_code.search import user_code_of
from compile_client.graphs.user_code.shipped_operators import why_not_as_shipped
from compile_torch.library_operators import LIBRARIES, libraries_in

FACTOR = 5.0

def library(space, kind="IMPL"):
    return torch.library.Library(space, kind)

def mine(*args):
    return args[0] * FACTOR

WAYS = {
    "nothing": lambda: None,
    "another fake": lambda: torch.library.register_fake(
        "transformers::grouped_mm_fallback", lambda x, w, o: x.new_empty(1), allow_override=True),
    "another formula": lambda: torch.library.register_autograd(
        "transformers::grouped_mm_fallback", lambda ctx, grad: (mine(grad), None, None)),
    "a formula made of the program's": lambda: torch.library.register_autograd(
        "transformers::grouped_mm_fallback", functools.partial(mine)),
    "a kernel for a device": lambda: torch.library.register_kernel(
        "transformers::grouped_mm_fallback", "cpu", lambda x, w, o: mine(x)),
    "a rule for batches": lambda: torch.library.register_vmap(
        "transformers::grouped_mm_fallback", lambda info, dims, *args: (mine(args), 0)),
    "a rule for autocast": lambda: torch.library.register_autocast(
        "transformers::grouped_mm_fallback", "cpu", torch.bfloat16),
    "a rule for a mode": lambda: torch.library.register_torch_dispatch(
        "transformers::grouped_mm_fallback", torch.utils._python_dispatch.TorchDispatchMode, mine),
    "a kernel by the dispatcher's name": lambda: library("transformers").impl(
        "grouped_mm_fallback", mine, "AutocastCPU"),
    "a function of torch's by the dispatcher's name": lambda: library("transformers").impl(
        "grouped_mm_fallback", torch.nn.functional.bilinear, "AutocastCPU"),
    "a Python kernel": lambda: torch.ops.transformers.grouped_mm_fallback.default.py_impl(
        torch._C.DispatchKey.AutocastCPU)(mine),
    "a function that its formula calls": lambda: setattr(transformers.integrations.moe, "_scaled", mine),
    "a number that its formula reads": lambda: (
        setattr(transformers.integrations.moe, "_TIMES", FACTOR),
        setattr(transformers.integrations.moe._times, "__code__", (lambda: _TIMES).__code__.replace(
            co_filename=transformers.integrations.moe.__file__))),
    "a version of the program's": lambda: operator_version("transformers::grouped_mm_fallback", "1"),
    "torchvision: a kernel": lambda: library("torchvision").impl("nms", mine, "AutocastCUDA"),
    "torchvision: a kernel of torch's": lambda: library("torchvision").impl("nms", torch.where, "AutocastCUDA"),
    "torchvision: a fake": lambda: torch.library.register_fake(
        "torchvision::nms", lambda d, s, t: d.new_empty(1), allow_override=True),
    "torchvision: autocast": lambda: torch.library.register_autocast("torchvision::nms", "cuda", torch.float16),
    "torchvision: a formula": lambda: torch.library.register_autograd(
        "torchvision::nms", lambda ctx, grad: (mine(grad), None, None), lib=library("torchvision")),
}

def looked_at(way):
    WAYS[way]()
    seen = {}
    def backend(gm, inputs):
        code = user_code_of(gm, inputs)
        try:
            capture(gm, inputs, dynamic_shapes=False)
            carried = ""
        except CannotCarryError as error:
            carried = str(error)
        seen.update(code=code.digest, why=code.why_not_shared, carried=carried, libraries=libraries_in(gm))
        return gm.forward
    if way.startswith("torchvision"):
        function, args = torch.ops.torchvision.nms, (torch.ones(2, 4), torch.ones(2), 0.5)
    else:
        function, args = torch.ops.transformers.grouped_mm_fallback, (
            torch.ones(2, 3), torch.ones(1, 3, 4), torch.tensor([2]))
    torch.compile(lambda *args: function(*args), backend=backend)(*args)
    return seen | {"said": {name: why_not_as_shipped(library) for name, library in LIBRARIES.items()}}

# What is imported on the way is imported once, and not in each child.
torch.compile(lambda x: x + 1, backend=lambda gm, inputs: (user_code_of(gm, inputs), gm.forward)[1])(torch.ones(2))
for way in WAYS:
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        try:
            found = looked_at(way)
        except BaseException:
            found = {"error": traceback.format_exc()}
        print(json.dumps([way, found]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""

WAYS = """
another fake|another formula|a formula made of the program's|a kernel for a device|a rule for batches|
a rule for autocast|a rule for a mode|a kernel by the dispatcher's name|
a function of torch's by the dispatcher's name|a Python kernel|
a function that its formula calls|a number that its formula reads|a version of the program's|
torchvision: a kernel|torchvision: a kernel of torch's|torchvision: a fake|torchvision: autocast|torchvision: a formula
""".replace("\n", "").split("|")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """Return what the client says of the operators, by what a program has done to them."""
    folder = tmp_path_factory.mktemp("packages")
    write_transformers(folder)
    write_torchvision(folder)
    path = os.pathsep.join(map(str, (folder, REPOSITORY, REPOSITORY / "proto")))
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT],
        env=os.environ | {"PYTHONPATH": path, "TORCH_COMPILE_CLIENT": "0"},
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    return dict(json.loads(line) for line in done.stdout.splitlines())


def test_as_its_library_ships_it_an_operator_is_carried_and_is_nobodys_own_code(
    found: dict[str, dict[str, object]],
) -> None:
    plain = found["nothing"]

    assert plain["said"] == {"transformers": "", "torchvision": ""}
    assert (plain["code"], plain["why"], plain["carried"]) == ("", "", "")
    (library,) = plain["libraries"]  # type: ignore[misc] # JSON
    assert library[:2] == ["l", "transformers"]
    assert len(library[2]) == 64


@pytest.mark.parametrize("way", WAYS)
def test_an_operator_that_the_program_has_changed_is_its_own(way: str, found: dict[str, dict[str, object]]) -> None:
    changed = found[way]

    assert "error" not in changed, changed["error"]
    package = "torchvision" if way.startswith("torchvision") else "transformers"
    assert changed["said"][package]  # type: ignore[index] # JSON
    assert "the program's own operator" in str(changed["carried"])
    assert changed["code"] or changed["why"]
