from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compiler_daemon.store import Store
from tests.store.store_samples import config


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> Iterator[Store]:
    with Store.open(config(root)) as store:
        yield store
