"""Two virtual environments in different folders give compiled objects the same names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import compile_wire
from compile_torch.objects import object_path, portable

_NAMES = """
import json, sys
from compile_torch.objects import object_name
print(json.dumps([object_name(source, command) for source, command in json.load(sys.stdin)]))
"""


@dataclass(frozen=True, slots=True)
class Layout:
    """A virtual environment whose torch is nothing but a folder."""

    prefix: Path

    @property
    def python(self) -> str:
        return str(self.prefix / "bin" / "python")

    @property
    def torch(self) -> str:
        return sysconfig.get_path("purelib", "venv", vars={"base": str(self.prefix)}) + "/torch"

    def make(self) -> Layout:
        venv.create(self.prefix, symlinks=True)
        os.makedirs(self.torch)
        Path(self.torch, "__init__.py").touch()
        return self

    def names(self, *kernels: tuple[str, str]) -> list[str]:
        done = subprocess.run(
            [self.python, "-c", _NAMES],
            input=json.dumps(kernels),
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": str(Path(compile_wire.__file__).parents[1])},
        )
        return list(json.loads(done.stdout))

    def kernel(self) -> tuple[str, str]:
        """Return a kernel's source and command line as torch writes them, full of absolute paths."""
        include = sysconfig.get_path("include")
        source = f'#include "{self.torch}/include/ATen/ATen.h"\nextern "C" void kernel(float* x) {{ x[0] = 1; }}\n'
        flags = "-O3 -march=native -std=c++20 -fPIC -shared"
        places = f"-I{include} -I{self.torch}/include -L{self.torch}/lib -L{self.prefix}/lib -ltorch -lc10"
        return source, f"g++ main.cpp {flags} {places} -o main.so"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("here") / "venv").make()


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("there") / "a" / "much" / "longer" / "way" / "to" / ".venv").make()


def test_a_kernel_has_the_same_name_in_another_virtual_environment(here: Layout, there: Layout) -> None:
    assert here.kernel() != there.kernel()

    assert here.names(here.kernel()) == there.names(there.kernel())


CHANGES: list[Callable[[str, str], tuple[str, str]]] = [
    lambda source, command: (source.replace("x[0] = 1", "x[0] = 2"), command),
    lambda source, command: (source.replace("float", "double"), command),
    lambda source, command: (source.replace("ATen.h", "Aten.h"), command),
    lambda source, command: (source, command.replace("-O3", "-O2")),
    lambda source, command: (source, command.replace("-march=native", "-mavx2")),
    lambda source, command: (source, command.replace("g++", "clang++")),
    lambda source, command: (source, command + " -ffast-math"),
    lambda source, command: (source, command.replace("/torch/include", "/torch/include2")),
    lambda source, command: (source, command.replace("/torch/lib", "/torch/include")),
    lambda source, command: (source, "-I/opt/other/include " + command),
    lambda source, command: (source + command, ""),
    lambda source, command: ("", source + command),
    lambda source, command: (command, source),
]


def test_a_kernel_has_another_name_for_every_other_change(here: Layout) -> None:
    kernels = [here.kernel(), *(change(*here.kernel()) for change in CHANGES)]

    assert len(set(here.names(*kernels))) == len(kernels)


def test_a_path_that_belongs_to_no_prefix_is_part_of_the_name(here: Layout, there: Layout) -> None:
    source, command = here.kernel()

    one, two = here.names((source, f"{command} -I/opt/one"), (source, f"{command} -I/opt/two"))
    (foreign,) = here.names(there.kernel())

    assert one != two
    assert foreign != here.names(here.kernel())[0]


def test_an_environment_reached_by_a_link_gives_the_same_name(here: Layout, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(here.prefix)

    assert Layout(link).names(Layout(link).kernel()) == here.names(here.kernel())


def test_a_name_is_one_plain_component_and_the_object_lies_beside_its_source(here: Layout) -> None:
    (name,) = here.names(here.kernel())

    assert len(name) == 1 + 64 + 3
    assert set(name[1:65]) <= set("0123456789abcdef")
    assert object_path("/cache/ab/cabc.main.cpp") == "/cache/ab/cabc.main.so"


def test_the_layouts_are_read_by_their_own_interpreters(here: Layout, there: Layout) -> None:
    """The two interpreters must differ, or the tests above would compare the test's own environment with itself."""
    for layout in (here, there):
        told = subprocess.run(
            [layout.python, "-c", "import sys, torch; print(sys.prefix); print(torch.__file__)"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.split() == [str(layout.prefix), f"{layout.torch}/__init__.py"]
    assert sys.prefix not in {str(here.prefix), str(there.prefix)}


def test_bytes_of_an_object_name_neither_torch_nor_the_folder_it_was_built_in(tmp_path: Path) -> None:
    torch = os.path.join(sysconfig.get_path("purelib"), "torch")
    source, path = tmp_path / "zb" / "czb.main.cpp", tmp_path / "zb" / "czb.main.so"
    source.parent.mkdir()
    source.write_text(f'extern "C" const char* texts[] = {{"at {torch}/include/a.h", "at " __FILE__, "/other/b.h"}};\n')
    subprocess.run(["g++", "-shared", "-fPIC", "-g", source, "-o", path], check=True)

    (data,) = portable([str(path)])

    assert torch.encode() not in data
    assert str(tmp_path).encode() not in data
    assert b"/include/a.h\0" in data
    assert b"/czb.main.cpp\0" in data
    assert b"/other/b.h\0" in data
