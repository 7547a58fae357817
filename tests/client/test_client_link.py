"""When a connection is kept, and when and how it is given up."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import pytest
from client_samples import ENVIRONMENT
from fake_daemon import FakeDaemon

from compile_client.config import ClientConfig
from compile_client.errors import FullError, LateError, OverdueError, UnavailableError
from compile_client.transport.circuit_breaker import CircuitBreaker
from compile_client.transport.connection import Connection
from compile_client.transport.deadline import Deadline
from compile_client.transport.endpoint import Credentials, UnixAddress
from compile_client.transport.reconnect import Link
from compile_client.transport.rpc import Rpc


class Closable:
    """Stands where the channel stands and remembers that it was closed."""

    closed = False

    def close(self) -> None:
        assert not self.closed
        self.closed = True


@pytest.fixture
def rpc() -> Closable:
    return Closable()


@pytest.fixture
def connection(rpc: Closable) -> Connection:
    config = ClientConfig(directory=Path("/nonexistent"))
    address, credentials = UnixAddress(Path("/s")), Credentials("t", secret=bytes(32))
    return Connection(config, address, cast("Rpc", rpc), credentials, ENVIRONMENT, "test")


@pytest.fixture
def link(directory: Path) -> Link:
    config = ClientConfig(directory=directory)
    return Link(config, lambda: ENVIRONMENT, "test", CircuitBreaker())


def test_a_retired_connection_is_closed_at_once_where_nobody_uses_it(connection: Connection, rpc: Closable) -> None:
    connection.retire()
    assert rpc.closed

    connection.retire()


def test_a_retired_connection_is_closed_after_its_last_call(connection: Connection, rpc: Closable) -> None:
    with connection.in_use():
        with connection.in_use():
            connection.retire()
        assert not rpc.closed

    assert rpc.closed


@pytest.mark.parametrize(("error", "kept"), [(FullError, True), (LateError, True), (UnavailableError, False)])
def test_only_trouble_of_the_connection_costs_it(
    daemon: FakeDaemon, link: Link, error: type[Exception], kept: bool
) -> None:
    def fail(_: Connection) -> None:
        raise error("so")

    with pytest.raises(error):
        link.call(Deadline(10), fail)

    assert (link.connection is not None) == kept
    link.close()


def test_trouble_of_an_old_connection_does_not_cost_the_new_one(daemon: FakeDaemon, link: Link) -> None:
    old = link.call(Deadline(10), lambda connection: connection)
    link.close()
    new = link.call(Deadline(10), lambda connection: connection)

    link.failed(UnavailableError(), old)

    assert link.connection is new
    link.close()


def test_who_waits_for_another_threads_handshake_waits_only_as_long_as_its_own_deadline(
    daemon: FakeDaemon, link: Link
) -> None:
    daemon.faults.hang.add("Handshake")

    def connect() -> None:
        with pytest.raises((LateError, UnavailableError)):
            link.call(Deadline(10), lambda _: None)

    first = threading.Thread(target=connect)
    first.start()
    assert daemon.arrived.wait(10)

    with pytest.raises(OverdueError):
        link.call(Deadline(0.05), lambda _: None)
    daemon.stop()
    first.join(10)
    assert not link.busy
