from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compile_client.config import ClientConfig
from compile_client.session.client import DaemonClient
from tests.client.client_samples import ENVIRONMENT
from tests.client.fake_daemon import FakeDaemon


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory for the daemon: it is private, and its path is short enough for a socket's name."""
    path = tmp_path / "d"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def daemon(directory: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(directory) as daemon:
        yield daemon


@pytest.fixture
def make_client(directory: Path) -> Iterator[Callable[..., DaemonClient]]:
    """Make clients, and close those that are still open at the end. Their deadlines are long, for busy machines."""
    clients: list[DaemonClient] = []

    def make(environment: Callable[[], dict[str, str]] = lambda: ENVIRONMENT, **settings: Any) -> DaemonClient:
        config = ClientConfig.from_environment({"COMPILER_DAEMON_DIR": str(directory)})
        shortened = {"answer_s": 5.0, "silence_s": 5.0, "flush_s": 5.0, "graph_timeout_s": 20.0}
        client = DaemonClient(replace(config, **(shortened | settings)), environment, program="test", env={})
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(make_client: Callable[..., DaemonClient]) -> DaemonClient:
    return make_client()
