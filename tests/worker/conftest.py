from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.worker_samples import Worker


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory, headers: Path) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("worker"), headers)
    made.compile("?", b"")  # the first job ends only once the worker is warm, and no test should wait for that
    yield made
    made.end()
