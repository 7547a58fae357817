"""torch's digests of its sources, remembered: by a package of a test's own, and torch's own way to read it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch._inductor.codecache import build_code_hash
from torch.utils._functools import prefetchable_cache

from compile_torch import source_digests
from compile_torch.source_digests import HashedPackage, remembered_digests, torch_and_triton

NAME = "digests.json"
LONG_AGO_S = 3600


@dataclass
class Sources:
    """A package with sources in it, and processes that ask for its digest, one after the other."""

    root: Path
    computed: int = 0
    memory: Path = field(default_factory=Path)

    def digest(self, *, since_ns: int | None = -1) -> str:
        """The digest that a new process has, which may be remembered."""

        def compute() -> bytes:
            self.computed += 1
            hasher = hashlib.sha256()
            build_code_hash([str(self.root)], "", hasher)
            return hasher.digest()

        package = HashedPackage("torch", "2", self.root, prefetchable_cache(compute))
        # Sources of a test are new; the time at which torch was imported is therefore in the future.
        since_ns = time.time_ns() + LONG_AGO_S * 10**9 if since_ns == -1 else since_ns
        with remembered_digests(self.memory, since_ns, [package]):
            digest: bytes = package.compute()
        return digest.hex()


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    root = tmp_path / "package"
    for name, text in {
        "__init__.py": "",
        "lowering.py": "answer = 41\n",
        "inner/__init__.py": "",
        "inner/deep.py": "depth = 2\n",
        "inner/folder/source.cpp": "int x;\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    memory = tmp_path / "memory"
    memory.mkdir(mode=0o700)
    return Sources(root, memory=memory)


def test_the_second_process_reads_no_source(sources: Sources) -> None:
    first = sources.digest()

    assert sources.digest() == first
    assert sources.computed == 1


def _edit(root: Path) -> None:
    (root / "lowering.py").write_text("answer = 42\n")


def _edit_in_place_with_all_times_put_back(root: Path) -> None:
    path = root / "lowering.py"
    before = path.stat()
    path.write_text("answer = 42\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def _replace_by_a_copy_with_its_times(root: Path) -> None:
    other = root.parent / "other.py"
    other.write_text("answer = 42\n")
    shutil.copystat(root / "lowering.py", other)
    other.rename(root / "lowering.py")


def _edit_below(root: Path) -> None:
    (root / "inner" / "deep.py").write_text("depth = 3\n")


def _add_a_module(root: Path) -> None:
    (root / "inner" / "extra.py").write_text("")


def _add_a_package(root: Path) -> None:
    (root / "more").mkdir()
    (root / "more" / "__init__.py").write_text("")


def _make_a_folder_a_package(root: Path) -> None:
    (root / "inner" / "folder" / "__init__.py").write_text("")


def _remove_a_module(root: Path) -> None:
    (root / "inner" / "deep.py").unlink()


@pytest.mark.parametrize(
    "change",
    [
        _edit,
        _edit_in_place_with_all_times_put_back,
        _replace_by_a_copy_with_its_times,
        _edit_below,
        _add_a_module,
        _add_a_package,
        _make_a_folder_a_package,
        _remove_a_module,
    ],
)
def test_whoever_changes_a_source_sees_another_digest(sources: Sources, change: Callable[[Path], None]) -> None:
    first = sources.digest()
    change(sources.root)

    assert sources.digest() != first
    assert sources.computed == 2


def test_a_file_that_torch_reads_beside_its_modules_counts_too(sources: Sources) -> None:
    sources.digest()
    (sources.root / "inner" / "folder" / "source.cpp").write_text("int y;\n")

    sources.digest()

    assert sources.computed == 2


def test_an_edit_that_is_taken_back_is_read_again(sources: Sources) -> None:
    first = sources.digest()
    _edit(sources.root)
    sources.digest()
    (sources.root / "lowering.py").write_text("answer = 41\n")

    assert sources.digest() == first
    assert sources.computed == 3


def test_another_place_with_the_same_sources_is_read(sources: Sources, tmp_path: Path) -> None:
    first = sources.digest()
    shutil.copytree(sources.root, tmp_path / "copy")
    copy = Sources(tmp_path / "copy", memory=sources.memory)

    assert copy.digest() == first
    assert copy.computed == 1


def test_what_was_changed_after_torch_was_imported_is_not_remembered(sources: Sources) -> None:
    """torch may have computed its digest between the import and the edit, of files that are no more."""
    sources.digest(since_ns=time.time_ns())

    sources.digest()

    assert sources.computed == 2


def test_without_knowing_when_torch_was_imported_nothing_is_remembered(sources: Sources) -> None:
    sources.digest(since_ns=None)
    sources.digest()

    assert sources.computed == 2
    assert sources.digest(since_ns=None) == sources.digest()
    assert sources.computed == 2


def test_times_of_whole_seconds_are_not_believed(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Rounded:
        st_dev: int
        st_ino: int = 1
        st_size: int = 1
        st_mtime_ns: int = 1_700_000_000_000_000_001
        st_ctime_ns: int = 1_700_000_000_000_000_000

    device = sources.root.stat().st_dev
    monkeypatch.setattr(source_digests, "_files", lambda root: iter([(f"{root}/__init__.py", Rounded(device))]))
    sources.digest()
    sources.digest()

    assert sources.computed == 2
    assert not (sources.memory / NAME).exists()


def test_a_file_system_that_others_can_change_is_not_believed(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_digests, "_LOCAL_FILE_SYSTEMS", frozenset({"xenix"}))
    sources.digest()
    sources.digest()

    assert sources.computed == 2
    assert not (sources.memory / NAME).exists()


def test_a_link_into_another_file_system_is_not_believed(sources: Sources) -> None:
    """`/proc` stands for a network: no file of it is this machine's disk, or its memory."""
    (sources.root / "version.py").symlink_to("/proc/version")
    sources.digest()
    sources.digest()

    assert sources.computed == 2


def test_a_triton_that_a_program_has_made_up_is_no_failure(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", types.ModuleType("triton"))

    with remembered_digests(sources.memory, time.time_ns()):
        pass


def test_the_file_is_the_users_alone(sources: Sources) -> None:
    sources.digest()

    assert (sources.memory / NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o644])
def test_a_file_that_others_can_reach_is_not_read(sources: Sources, mode: int) -> None:
    sources.digest()
    (sources.memory / NAME).chmod(mode)

    sources.digest()

    assert sources.computed == 2


def test_a_directory_that_others_can_reach_remembers_nothing(sources: Sources) -> None:
    sources.memory.chmod(0o755)
    sources.digest()

    assert list(sources.memory.iterdir()) == []
    assert sources.computed == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of another user")
def test_a_file_of_another_user_is_not_read(sources: Sources) -> None:
    sources.digest()
    os.chown(sources.memory / NAME, 12345, 12345)

    sources.digest()

    assert sources.computed == 2


@pytest.mark.parametrize(
    "text", ["", "[]", '{"form": 1}', '{"form": 1, "digests": []}', '{"form": 2, "digests": {}}', "\xff", "[" * 50_000]
)
def test_a_file_of_another_form_is_written_anew(sources: Sources, text: str) -> None:
    first = sources.digest()
    (sources.memory / NAME).write_text(text)

    assert sources.digest() == first
    assert sources.digest() == first
    assert sources.computed == 2


def test_the_file_stays_small_however_many_environments_there_are(sources: Sources) -> None:
    for number in range(20):
        (sources.root / "lowering.py").write_text(f"answer = {number}\n")
        sources.digest()

    assert len(json.loads((sources.memory / NAME).read_text())["digests"]) <= 6
    computed = sources.computed
    sources.digest()
    assert sources.computed == computed


def test_a_failure_of_the_one_who_asks_is_passed_on(sources: Sources) -> None:
    package = HashedPackage("torch", "2", sources.root, prefetchable_cache(lambda: b""))
    with pytest.raises(ZeroDivisionError), remembered_digests(sources.memory, time.time_ns(), [package]):
        raise ZeroDivisionError


def test_torchs_own_digests_can_be_given_to_it() -> None:
    found = {package.name: package for package in torch_and_triton()}

    assert found["torch"].root == Path(torch.__file__).parent
    assert all(hasattr(package.compute, "set") for package in found.values())


_ASKING = """
import pathlib, sys, time
import torch
from torch._inductor import codecache
from compile_torch import source_digests
with source_digests.remembered_digests(pathlib.Path(sys.argv[1]), time.time_ns() + 3600 * 10**9):
    recalled = True
    try:
        codecache.torch_key.set(b"")
        codecache.torch_key.clear()
        recalled = False
    except RuntimeError:
        pass
    key = codecache.torch_key()
print(torch.__file__, recalled, key.hex())
"""


@pytest.mark.slow
def test_an_edit_inside_an_installed_torch_is_seen_by_the_next_process(tmp_path: Path) -> None:
    installed = tmp_path / "site"
    installed.mkdir()
    memory = tmp_path / "memory"
    memory.mkdir(mode=0o700)
    subprocess.run(["cp", "-as", str(Path(torch.__file__).parent), str(installed / "torch")], check=True, timeout=60)
    edited = installed / "torch" / "_inductor" / "lowering.py"
    text = edited.read_text()
    edited.unlink()
    edited.write_text(text + "# 1\n")

    def ask() -> tuple[bool, str]:
        done = subprocess.run(
            [sys.executable, "-c", _ASKING, str(memory)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), *filter(None, sys.path)])},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        where, recalled, key = done.stdout.split()
        assert where.startswith(str(installed))
        return recalled == "True", key

    first, again = ask(), ask()
    status = edited.stat()
    edited.write_text(text + "# 2\n")
    os.utime(edited, ns=(status.st_atime_ns, status.st_mtime_ns))
    after = ask()

    assert first == (False, again[1])
    assert again[0]
    assert not after[0]
    assert after[1] != first[1]
