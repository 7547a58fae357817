"""A trainer whose files stay away: they are there for itself, and gone with it. Real layers of the kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from compiler_daemon.admin.sweep import aside

PROGRAM = """
import os, shutil
open("new", "w").write("written")
os.replace("new", "renamed")
open("old", "a").write(" and more")
os.remove("gone"); shutil.rmtree("folder"); os.mkdir("folder")
print(open("renamed").read(), open("old").read(), sorted(os.listdir(".")), os.listdir("folder"), os.getcwd())
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "own"
    (made / "folder").mkdir(parents=True)
    for name in ("old", "gone", "folder/inner"):
        (made / name).write_text(name)
    return made


def contents(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def check(directory: Path, layers: Path) -> None:
    """Run the program in a layer over `directory`, and see that it saw its files and nobody else does."""
    layer = layers / "layer"
    layer.mkdir()
    before = contents(directory)
    command = [*aside.launcher(layer), sys.executable, "-c", PROGRAM]

    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    seen = ["folder", "old", "renamed"]
    assert done.stdout == f"written old and more {seen} [] {directory}\n"
    assert contents(directory) == before
    aside.remove(layer)
    assert not layer.exists()


def test_a_trainer_reads_what_it_writes_and_its_directory_stays_as_it_was(directory: Path, tmp_path: Path) -> None:
    if why := aside.why_not([directory], tmp_path / "layers"):
        pytest.skip(f"files cannot be kept away here: {why}")

    check(directory, tmp_path)

    assert list((tmp_path / "layers").iterdir()) == []


SYSTEMS_PYTHON = "/usr/bin/python3"  # which every user may run


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(SYSTEMS_PYTHON) or shutil.which("setpriv") is None,
    reason="only root can become another user, who needs a Python",
)
def test_a_user_without_rights_has_it_by_a_namespace_of_its_own(directory: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="nobodys-") as text:
        home = Path(text)
        shutil.copytree(directory, home / "own")
        shutil.copy(aside.__file__, home / "aside.py")
        (home / "layer").mkdir()
        for path in (home, *home.rglob("*")):
            os.chown(path, 65534, 65534)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        if subprocess.run([*nobody, "unshare", "--user", "--mount", "true"], check=False).returncode:
            pytest.skip("users may make no namespaces here")
        before = contents(home / "own")
        command = [
            *nobody,
            SYSTEMS_PYTHON,
            "-I",
            "-S",
            home / "aside.py",
            home / "layer",
            SYSTEMS_PYTHON,
            "-c",
            PROGRAM,
        ]

        done = subprocess.run(command, cwd=home / "own", capture_output=True, text=True, timeout=60, check=False)

        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("written old and more ['folder', 'old', 'renamed'] []")
        assert contents(home / "own") == before


def test_where_it_cannot_be_the_reason_is_a_sentence_and_the_trainer_is_not_run(tmp_path: Path) -> None:
    layer = tmp_path / "daemon" / "layer"

    assert "is below" in aside.why_not([tmp_path], tmp_path / "daemon")
    assert "No such file" in aside.why_not([tmp_path / "absent"], tmp_path / "daemon")
    done = subprocess.run(
        [*aside.launcher(layer), "touch", "run"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 126
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_command_that_is_not_there_ends_as_in_a_shell(directory: Path, tmp_path: Path) -> None:
    if why := aside.why_not([directory], tmp_path / "layers"):
        pytest.skip(f"files cannot be kept away here: {why}")

    command = [*aside.launcher(tmp_path / "layer"), "no-such-trainer"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (127, "no-such-trainer cannot be started: No such file or directory\n")
