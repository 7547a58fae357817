"""Tests of when a connection is kept, and of when and how it is given up."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import cast

import pytest

from compile_client.config import ClientConfig
from compile_client.errors import FullError, LateError, OverdueError, UnavailableError
from compile_client.transport.circuit_breaker import CircuitBreaker
from compile_client.transport.connection import Connection
from compile_client.transport.deadline import Deadline
from compile_client.transport.endpoint import Credentials, UnixAddress
from compile_client.transport.reconnect import ReconnectingChannel
from compile_client.transport.rpc import Rpc
from tests.client.client_samples import ENVIRONMENT
from tests.client.fake_daemon import FakeDaemon


class Closable:
    """A stand-in for the channel that remembers whether it was closed."""

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
def channel(directory: Path) -> ReconnectingChannel:
    config = ClientConfig(directory=directory)
    return ReconnectingChannel(config, lambda: ENVIRONMENT, "test", CircuitBreaker())


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
    daemon: FakeDaemon, channel: ReconnectingChannel, error: type[Exception], kept: bool
) -> None:
    with pytest.raises(error), channel.exchange(Deadline(10)):
        raise error("so")

    assert (channel.connection is not None) == kept
    channel.close()


def test_trouble_of_an_old_connection_does_not_cost_the_new_one(
    daemon: FakeDaemon, channel: ReconnectingChannel
) -> None:
    with channel.exchange(Deadline(10)) as old:
        pass
    channel.close()
    with channel.exchange(Deadline(10)) as new:
        pass

    channel.failed(UnavailableError(), old)

    assert channel.connection is new
    channel.close()


def test_who_waits_for_another_threads_handshake_waits_only_as_long_as_its_own_deadline(
    daemon: FakeDaemon, channel: ReconnectingChannel
) -> None:
    daemon.faults.hang.add("Handshake")

    def connect() -> None:
        with pytest.raises((LateError, UnavailableError)), channel.exchange(Deadline(10)):
            pass

    first = threading.Thread(target=connect)
    first.start()
    assert daemon.arrived.wait(10)

    with pytest.raises(OverdueError), channel.exchange(Deadline(0.05)):
        pass
    daemon.stop()
    first.join(10)
    assert not channel.busy
