"""What is handed to people who have no checkout: a wheel and a source archive, built, read, and installed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_bytes
from pathlib import Path

import pytest

from compiler_daemon import __version__
from tools import man_pages

ROOT = Path(__file__).parents[2]
PACKAGES = {"compile_client", "compile_torch", "compile_wire", "compiler_daemon"}
MOST_BYTES = 1_000_000
MAN = f"compiler_daemon-{__version__}.data/data/share/man/man1"

needs_builder = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("hatchling", "hatch_fancy_pypi_readme")),
    reason="nothing is here that builds: `pip install hatchling hatch-fancy-pypi-readme`",
)


@dataclass(frozen=True)
class Built:
    wheel: Path
    archive: Path


def run(command: Sequence[str | Path], **more: str) -> str:
    # Neither the checkout nor what this very process was told to import: the installed files must be enough.
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        list(command), env=environ | more, cwd="/", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(source: Path, out: Path, *targets: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out)]
    for target in targets:
        command += ["-t", target]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out, "wheel", "sdist")
    [wheel], [archive] = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(wheel, archive)


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel. What it depends on is lent by this one, after the wheel's own packages."""
    home = tmp_path_factory.mktemp("fresh")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    options = ["--no-deps", "--no-index", "--quiet", "--disable-pip-version-check", "--no-compile"]
    run([sys.executable, "-m", "pip", "--python", python, "install", *options, built.wheel])
    [packages] = home.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


@needs_builder
def test_the_wheel_has_the_packages_of_client_and_daemon_and_nothing_else(built: Built) -> None:
    names = zipfile.ZipFile(built.wheel).namelist()

    beside = {f"compiler_daemon-{__version__}.{kind}" for kind in ("dist-info", "data")}
    assert {name.split("/")[0] for name in names} == PACKAGES | beside
    assert {name.rsplit("/", 1)[0] for name in names if ".data/" in name} == {MAN}
    assert built.wheel.stat().st_size < MOST_BYTES
    # Files that are no modules, and without which something does not work.
    needed = {"http/static/page.js", "http/templates/overview.html", "admin/life/compiler-daemon.service"}
    assert {f"compiler_daemon/{name}" for name in needed} | {"compile_torch/settings_2_13.json"} <= set(names)


@needs_builder
def test_every_module_of_the_checkout_is_in_the_wheel(built: Built) -> None:
    folders = [ROOT / "compiler_daemon", ROOT / "compile_client", ROOT / "proto/compile_torch"]
    folders.append(ROOT / "proto/compile_wire")
    modules = {str(path.relative_to(folder.parent)) for folder in folders for path in folder.rglob("*.py")}

    assert modules <= set(zipfile.ZipFile(built.wheel).namelist())


@needs_builder
def test_the_source_archive_is_small_and_makes_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.archive) as archive:
        archive.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()

    build(source, tmp_path / "again", "wheel")

    assert built.archive.stat().st_size < MOST_BYTES
    assert not (source / "benches").exists()
    [again] = (tmp_path / "again").glob("*.whl")
    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(built.wheel).namelist()


@needs_builder
def test_the_readme_of_the_metadata_has_no_link_that_leads_nowhere(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        metadata = message_from_bytes(wheel.read(f"compiler_daemon-{__version__}.dist-info/METADATA"))
    text = metadata.get_payload()

    assert isinstance(text, str)
    assert "# compile daemon" in text
    assert metadata["Description-Content-Type"] == "text/markdown"
    targets = re.findall(r"\]\(([^)]*)\)|\b(?:href|src)=\"([^\"]*)\"", text)
    assert [target for pair in targets for target in pair if target and not target.startswith("https://")] == []
    # The words of a link are still there.
    assert re.search(r"(?<!\[)troubleshooting(?!\])", text)


@needs_builder
def test_the_wheel_in_a_fresh_environment_runs_and_brings_nothing_of_the_lab(installed: Path) -> None:
    command = installed / "bin" / "compiler-daemon"
    where = "import compiler_daemon, compile_client, compile_torch, compile_wire as w; print(compiler_daemon.__file__)"
    absent = "import importlib.util as u; print([n for n in ('benches', 'diffusion', 'tests') if u.find_spec(n)])"

    assert run([command, "--version"]) == f"compiler-daemon {__version__}\n"
    assert "serve" in run([command, "--help"])
    assert run([installed / "bin" / "python", "-c", where]).startswith(str(installed))
    assert run([installed / "bin" / "python", "-c", absent]) == "[]\n"


@needs_builder
def test_the_installed_man_pages_are_where_man_looks_one_for_each_verb(installed: Path) -> None:
    pages = {path.name for path in (installed / "share" / "man" / "man1").iterdir()}

    assert pages == set(man_pages.pages())
    assert {"compiler-daemon.1", "compiler-daemon-run.1", "compiler-daemon-keys-signer-init.1"} <= pages


def test_the_man_pages_say_what_help_says() -> None:
    assert man_pages.main(["--check"]) == 0, "run python tools/man_pages.py and commit"


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff, which sets man pages, is not installed")
def test_the_man_pages_can_be_set_and_no_word_is_lost() -> None:
    for name, page in man_pages.pages().items():
        done = subprocess.run(
            ["groff", "-man", "-ww", "-Tascii", "-P-cbou"],
            input=page.encode(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b""), name

    told = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-cbou", "-rLL=200n", ROOT / "docs" / "man" / "compiler-daemon-warm.1"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    told = " ".join(told.split())
    assert "compiler-daemon warm [OPTIONS] [COMMAND...]" in told
    assert "compiler-daemon warm --matrix size=16,32,64 -- python train.py --size {size} --steps 1" in told


@needs_builder
def test_torch_finds_the_installed_client(installed: Path) -> None:
    code = (
        "from importlib.metadata import entry_points as found\n"
        "for group in ('torch.backends', 'torch_dynamo_backends'):\n"
        "    print(*{one.load().__module__ for one in found(group=group) if 'compile_client' in one.value})"
    )

    assert run([installed / "bin" / "python", "-c", code]) == "compile_client\ncompile_client\n"
