from __future__ import annotations

from pathlib import Path

import pytest

from compiler_daemon.admin.sweep.plan import Cell, from_manifest, from_options
from compiler_daemon.errors import UsageError


def commands(cells: list[Cell]) -> list[str]:
    return [" ".join(cell.command) for cell in cells]


def test_a_matrix_gives_one_cell_for_each_combination_in_its_order() -> None:
    cells = from_options(["train", "--size={size}", "--mode", "{mode}"], ["size=16,32", "mode=a,b"])

    assert commands(cells) == [
        "train --size=16 --mode a",
        "train --size=16 --mode b",
        "train --size=32 --mode a",
        "train --size=32 --mode b",
    ]
    assert [cell.label for cell in cells][1] == "size=16 mode=b"
    assert len({cell.digest for cell in cells}) == 4


def test_a_command_without_a_matrix_is_one_cell_and_other_braces_stay() -> None:
    assert commands(from_options(["train", '{"a": 1}', "{scratch}"], [])) == ['train {"a": 1} {scratch}']


def test_a_name_in_braces_twice_is_the_trainers_and_a_shells_variable_is_the_shells() -> None:
    cells = from_options(["sh", "-c", "echo ${HOME} {{size}} {size}"], ["size=16"])

    assert commands(cells) == ["sh -c echo ${HOME} {size} 16"]


@pytest.mark.parametrize(
    ("command", "matrix", "complaint"),
    [
        ([], [], "there is no command"),
        (["train"], ["size"], "NAME=VALUE"),
        (["train"], ["size="], "NAME=VALUE"),
        (["train"], ["size=1"], "has no {size}"),
        (["train", "{size}"], ["size=1,1"], "a value twice"),
        (["train", "{size}"], ["size=1", "size=2"], "names size twice"),
        (["train", "{size}", "{mode}"], ["size=1"], r"nothing says what {mode} .* --matrix mode=VALUE.*{{mode}}"),
        (["train", "{scratch}"], ["scratch=1"], "cannot have the name"),
        (["train", "{a}{b}"], [f"{name}={','.join(map(str, range(101)))}" for name in "ab"], "split the sweep"),
    ],
)
def test_a_slip_in_command_or_matrix_is_said(command: list[str], matrix: list[str], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        from_options(command, matrix)


def test_a_manifest_with_one_sweep(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text("[sweep]\ncommand = \"train --size {size} 'a b'\"\n[matrix]\nsize = [1, 2.5, true]\n")

    cells = from_manifest(path)

    assert [cell.command for cell in cells] == [
        ("train", "--size", "1", "a b"),
        ("train", "--size", "2.5", "a b"),
        ("train", "--size", "true", "a b"),
    ]


def test_several_sweeps_have_names_environments_and_directories_and_share_cells(tmp_path: Path) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(
        """
        [[sweep]]
        name = "first"
        command = ["train", "{size}"]
        environment = { SIZE = "x{size}", THREADS = 2 }
        directory = "here"
        matrix = { size = [1, 2] }
        [[sweep]]
        name = "second"
        command = ["test"]
        [[sweep]]
        name = "third"
        command = ["test"]
        """
    )

    cells = from_manifest(path)

    assert [cell.label for cell in cells] == ["first size=1", "first size=2", "third"]
    assert cells[0].environment == (("SIZE", "x1"), ("THREADS", "2"))
    assert cells[0].directory == str(tmp_path / "here")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("no toml", "cannot be read as TOML"),
        ("", "has no \\[sweep\\]"),
        ("[sweep]\n", "a sweep has a command"),
        ("[sweep]\ncommand = 3\n", "a command is text or a list"),
        ("[sweep]\ncommand = 'a {b}'\n[matrix]\nb = 3\n", "gives each name a list"),
        ("[sweep]\ncommand = 'a {b}'\n[matrix]\nb = [[1]]\n", "a word, a number or a flag"),
        ("[sweep]\ncommand = 'a'\nenvironment = 3\n", "an environment gives"),
        ("[sweep]\ncommand = 'a'\nkommando = 3\n", "may have"),
        ("[sweep]\ncommand = 'a'\n[martix]\n", "has martix"),
        ("[[sweep]]\ncommand = 'a'\n[matrix]\n", "a matrix of its own"),
    ],
)
def test_a_slip_in_a_manifest_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(text)

    with pytest.raises(UsageError, match=complaint):
        from_manifest(path)
