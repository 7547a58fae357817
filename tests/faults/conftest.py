from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.forked import ForkServer
from tests.faults.kit import Kit


@pytest.fixture(scope="session")
def short_folder() -> Iterator[Path]:
    """A folder with a short name, because a Unix socket's path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kit(short_folder: Path, headers: Path) -> Iterator[Kit]:
    """The kit for all cells. It times only one form of the trainer, and trainers are forks, as in `make matrix`."""
    kit = Kit.prepare(short_folder / "kit", with_seconds=False, temporary=headers)
    (short_folder / "forks").mkdir()
    kit.forks = ForkServer(kit.temporary, short_folder / "forks")
    yield kit
    kit.forks.close()
