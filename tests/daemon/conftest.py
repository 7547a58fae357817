from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.daemon_process import DaemonProcess
from tests.daemon.page_samples import PageVisitor

_numbers = itertools.count()


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Start daemons that end with the test, for tests that need settings of their own or that end the daemon."""
    with ExitStack() as scope:

        def start(name: str = "d", **settings: Any) -> DaemonProcess:
            return scope.enter_context(DaemonProcess(tmp_path / name, **settings))

        yield start


@pytest.fixture(scope="session")
def shared_daemon() -> Iterator[DaemonProcess]:
    """One daemon for all tests that need no other; each test uses keys of its own."""
    with tempfile.TemporaryDirectory(prefix="daemon-") as directory, DaemonProcess(Path(directory) / "d") as daemon:
        daemon.handshake()
        yield daemon


@pytest.fixture
def daemon(shared_daemon: DaemonProcess) -> DaemonProcess:
    shared_daemon.handshake()
    return shared_daemon


@pytest.fixture(scope="session")
def shared_page() -> Iterator[PageVisitor]:
    """One daemon with a page, for all tests that need no other."""
    with (
        tempfile.TemporaryDirectory(prefix="page-") as directory,
        DaemonProcess(Path(directory) / "d", daemon={"page_port": 0}) as daemon,
    ):
        daemon.handshake()
        yield PageVisitor(daemon)


@pytest.fixture
def page(shared_page: PageVisitor) -> PageVisitor:
    shared_page.daemon.handshake()
    return shared_page


@pytest.fixture
def key() -> str:
    """A key that no other test has used."""
    return f"key-{next(_numbers)}"
