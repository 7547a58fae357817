"""The order in which several processes share the tests, what they build once for all, and what each test gets back."""

from __future__ import annotations

import fcntl
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import with_probes

_LONGEST_FIRST = ("twins", "faults", "e2e", "lab", "kernels", "worker")
"""These folders hold tests that compile. They start first, so that no process is left alone with them at the end,
and so that tests that measure a second or two run side by side.
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare `--slice`."""
    parser.addoption("--slice", metavar="K/N", help="take the K-th of N parts of the tests, shared out by their names")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is of another slice.

    Order the files for `-n 2 --dist loadfile --no-loadscope-reorder`; a single process keeps its own order.
    """
    if chosen := config.getoption("slice"):
        part, parts = map(int, chosen.split("/"))
        mine = [zlib.crc32(item.nodeid.encode()) % parts == part % parts for item in items]
        config.hook.pytest_deselected(items=[item for item, taken in zip(items, mine, strict=True) if not taken])
        items[:] = [item for item, taken in zip(items, mine, strict=True) if taken]
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    room = item.path.parent.name
    return _LONGEST_FIRST.index(room) if room in _LONGEST_FIRST else len(_LONGEST_FIRST)


@pytest.fixture(autouse=True)
def _client_logger() -> Iterator[None]:
    """Restore the level of the client's logger: a client sets it for the process, and could silence the next test."""
    logger = logging.getLogger("compile_client")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def headers(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Return a TMPDIR for everything that compiles, with torch's probes of the instruction sets in it.

    torch keeps precompiled headers there. All test processes share one folder, because tests count and compare kernels
    only, and building the same header in each of them takes minutes.
    """
    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        folder = folder.parent
    made = folder / "t"
    with (folder / "t.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            made.mkdir()
            with_probes(made)
    return made
