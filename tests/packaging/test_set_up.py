"""The torch that set-up takes, and the newest one that CI runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from compile_torch import versions

ROOT = Path(__file__).parents[2]
SUPPORTED = re.search(r'^supported="(.*)"$', (ROOT / "tools/torch_to_install.sh").read_text(), re.MULTILINE)


def _offer(folder: Path, version: str) -> None:
    """Put a wheel of torch into a folder: its name and metadata, which is what pip looks at."""
    info = f"torch-{version}.dist-info"
    with zipfile.ZipFile(folder / f"torch-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def _taken(folder: Path, **more: str) -> str:
    """Return what set-up would install where pip is offered the wheels of a folder alone, without a GPU."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "TORCH"))}
    empty = folder / "bin"
    empty.mkdir(exist_ok=True)
    kept |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PATH": str(empty)}
    command = ["/bin/bash", "tools/torch_to_install.sh", sys.executable]
    done = subprocess.run(command, cwd=ROOT, env=kept | more, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_newest_cpu_build_that_pip_is_offered_is_taken(tmp_path: Path) -> None:
    for version in ("2.13.0+cpu", "2.14.1+cpu", "2.15.0", "2.16.0+cpu"):
        _offer(tmp_path, version)

    assert _taken(tmp_path) == "torch==2.14.1+cpu"


def test_where_there_is_no_cpu_build_the_newest_torch_is_taken(tmp_path: Path) -> None:
    _offer(tmp_path, "2.15.0")

    assert _taken(tmp_path) == "torch==2.15.0"


@pytest.mark.parametrize(
    ("variables", "torch"),
    [({"TORCH": "2.13.0"}, "torch==2.13.0"), ({"UV_TORCH_BACKEND": "cpu"}, "torch==2.15.0")],
)
def test_what_the_user_says_decides(tmp_path: Path, variables: dict[str, str], torch: str) -> None:
    _offer(tmp_path, "2.14.1+cpu")

    assert _taken(tmp_path, **variables) == torch


def test_set_up_ci_and_package_agree_on_the_newest_torch() -> None:
    assert SUPPORTED is not None
    newest = SUPPORTED[1].split()[0]
    major, minor = versions.NEWEST

    assert newest.startswith(f"{major}.{minor}.")
    assert f"NEWEST := {newest}\n" in (ROOT / "Makefile").read_text()
    assert f'"torch>=2.11,<{major}.{minor + 1}"' in (ROOT / "pyproject.toml").read_text()
