from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kit import Kit


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short name, because a Unix socket's path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kit(short_folder: Path, headers: Path) -> Kit:
    """The kit for all cells. It times only one form of the trainer."""
    return Kit.prepare(short_folder / "kit", with_seconds=False, temporary=headers)
