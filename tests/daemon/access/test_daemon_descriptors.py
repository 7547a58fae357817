"""The daemon limits open files and connections, and chooses which connections give way."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compiler_daemon.access.descriptors import Connection, keep_silent_out, let_go, max_connections
from tests.daemon.daemon_process import DaemonProcess, wait_until
from tests.daemon.tls_daemon import TlsDaemon


def test_a_daemon_raises_its_soft_limit_of_open_files(start_daemon: Callable[..., DaemonProcess]) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        daemon = start_daemon()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
    found = re.search(r"Max open files\s+(\d+)\s+(\d+)", limits)
    assert found
    assert int(found[1]) == min(65_536, int(found[2]))


@pytest.mark.parametrize(
    ("open_files", "connections"), [(65_536, 1024), (2048, 896), (1024, 384), (256, 64), (64, 16), (10, 8)]
)
def test_connections_leave_a_reserve_of_open_files(open_files: int, connections: int) -> None:
    assert max_connections(open_files) == connections
    assert 2 * connections < open_files or connections == 8


def test_the_kernel_keeps_a_connection_to_itself_until_it_says_something() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        keep_silent_out(server.getsockname()[1])
        server.settimeout(0.3)
        with socket.create_connection(server.getsockname()) as client:
            with pytest.raises(TimeoutError):
                server.accept()

            client.sendall(b"hello")

            with server.accept()[0] as accepted:
                assert accepted.recv(5) == b"hello"


def test_a_daemon_has_no_descriptors_for_connections_that_say_nothing(tmp_path: Path) -> None:
    with TlsDaemon(tmp_path / "d") as daemon, contextlib.ExitStack() as scope:
        opened = Path(f"/proc/{daemon.process.pid}/fd")
        with daemon.remote("ada") as ada:
            ada.status()
        before = len(list(opened.iterdir()))
        began = time.monotonic()
        silent = [scope.enter_context(socket.create_connection(("127.0.0.1", daemon.port))) for _ in range(60)]
        with daemon.remote("bob") as bob:
            bob.status()  # the daemon answers a later client, so it would have accepted the silent ones by now
        seen = len(list(opened.iterdir()))
        late = time.monotonic() - began > 0.8  # the kernel hands silent connections over after a second

        for one in silent:
            one.sendall(b"\x16\x03\x01")

        assert late or seen < before + 30
        wait_until(lambda: len(list(opened.iterdir())) >= before + 50, what="connections that speak are taken")


def test_of_too_many_connections_those_go_that_have_not_begun_and_the_oldest_first() -> None:
    with _connected([2000, 0, 300, 0, 0, 0]) as (port, clients, elsewhere, seen):
        assert let_go(port, 33, seen, 6).keys() == seen.keys()
        assert [_is_over(one) for one in clients] == [False] * 6

        let_go(port, 17, seen, 7)

        assert [_is_over(one) for one in clients] == [False, True, False, True, False, False]
        assert not _is_over(elsewhere)


def test_connections_that_shake_hands_have_more_places_than_those_that_have_not_begun() -> None:
    with _connected([2000, 300, 0, 300, 300, 0]) as (port, clients, elsewhere, seen):
        let_go(port, 13, seen, 6)
        assert [_is_over(one) for one in clients] == [False] * 6

        let_go(port, 9, seen, 7)

        assert [_is_over(one) for one in clients] == [False, True, True, False, False, False]
        assert not _is_over(elsewhere)


def test_clients_that_are_in_do_not_cost_the_next_ones_their_places_until_there_are_none() -> None:
    with _connected([*[2000] * 20, 300, 0]) as (port, clients, _, seen):
        let_go(port, 64, seen, 22)
        assert [_is_over(one) for one in clients] == [False] * 22

        let_go(port, 20, seen, 23)

        assert [_is_over(one) for one in clients] == [False] * 20 + [True, True]


@contextlib.contextmanager
def _connected(
    lengths: list[int],
) -> Iterator[tuple[int, list[socket.socket], socket.socket, dict[int, Connection]]]:
    """Yield a port, its clients from oldest to youngest, a client of another port, and the connections seen so far.

    Each client has sent as many bytes as `lengths` says.
    """
    with contextlib.ExitStack() as scope:
        server = scope.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = server.getsockname()[1]
        other = scope.enter_context(socket.create_server(("127.0.0.1", 0)))
        seen: dict[int, Connection] = {}
        clients = []
        for number, length in enumerate(lengths):
            client = scope.enter_context(socket.create_connection(("127.0.0.1", port)))
            accepted = scope.enter_context(server.accept()[0])
            client.sendall(b"x" * length)
            assert len(accepted.recv(length, socket.MSG_WAITALL)) == length
            clients.append(client)
            seen = let_go(port, 1000, seen, number)
        elsewhere = scope.enter_context(socket.create_connection(other.getsockname()))
        scope.enter_context(other.accept()[0])
        for one in (*clients, elsewhere):
            one.settimeout(0.2)
        yield port, clients, elsewhere, seen


def test_the_address_that_floods_gives_way_before_the_others() -> None:
    with contextlib.ExitStack() as scope:
        server = scope.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = server.getsockname()[1]
        clients = []
        for address in ("127.0.0.1", "127.0.0.9", "127.0.0.9", "127.0.0.9", "127.0.0.9", "127.0.0.1"):
            client = socket.create_connection(("127.0.0.1", port), source_address=(address, 0))
            clients.append(scope.enter_context(client))
            scope.enter_context(server.accept()[0])

        let_go(port, 32, {}, 0)

        for one in clients:
            one.settimeout(0.2)
        assert [_is_over(one) for one in clients] == [False, True, True, False, False, False]


def _is_over(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
