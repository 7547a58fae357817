"""A command uses one connection to the daemon, however many calls it makes, and closes it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from compiler_daemon.admin.connection import OperatorClient
from compiler_daemon.admin.inventory.calls import InventoryClient
from compiler_daemon.config import DaemonLocation
from compiler_daemon.errors import NotRunningError
from tests.daemon.daemon_process import DaemonProcess, wait_until
from tests.daemon.inventory_samples import done, graph_of, publish

Start = Callable[..., DaemonProcess]


class Relay:
    """Stands in front of a daemon's socket and counts the connections on which a client sent anything."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self._target = path, target
        self.spoken = 0
        self._scope = ExitStack()
        self._threads: list[threading.Thread] = []

    @property
    def open(self) -> int:
        return sum(thread.is_alive() for thread in self._threads[1:])

    def __enter__(self) -> Relay:
        self._listener = self._scope.enter_context(socket.socket(socket.AF_UNIX))
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._scope.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was shut
            while True:
                self._start(self._serve, self._listener.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as daemon:
            if not (first := client.recv(65536)):  # the client only looked who listens
                return
            self.spoken += 1
            daemon.connect(str(self._target))
            daemon.sendall(first)
            back = threading.Thread(target=_pump, args=(daemon, client), daemon=True)
            back.start()
            _pump(client, daemon)
            back.join(10)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def relay_to(tmp_path: Path) -> Iterator[Callable[[DaemonProcess], Relay]]:
    with ExitStack() as scope:

        def start(daemon: DaemonProcess) -> Relay:
            return scope.enter_context(Relay(tmp_path / "relay.sock", daemon.directory / "daemon.sock"))

        yield start


@pytest.fixture
def filled(start_daemon: Start) -> DaemonProcess:
    """A daemon with many artifacts, each with blobs of its own."""
    daemon = start_daemon("one")
    for number in range(6):
        blobs = [f"blob {number}.{part}".encode() for part in range(3)]
        publish(daemon, f"key-{number}", *blobs, program="sweep", graph=graph_of(4 + number))
    return daemon


@pytest.mark.parametrize(
    "command",
    [("ls",), ("show", "key-1"), ("pin", "key-1", "key-2"), ("status",), ("stats",), ("gc", "--dry-run")],
    ids=" ".join,
)
def test_a_command_is_one_connection(
    filled: DaemonProcess, relay_to: Callable[[DaemonProcess], Relay], command: tuple[str, ...]
) -> None:
    relay = relay_to(filled)

    done(filled.directory, *command, "--address", f"unix:{relay.path}")

    assert relay.spoken == 1
    wait_until(lambda: relay.open == 0, what="the connection ends")


def test_an_export_and_an_import_are_one_connection_each_however_many_blobs_there_are(
    filled: DaemonProcess, relay_to: Callable[[DaemonProcess], Relay], start_daemon: Start, tmp_path: Path
) -> None:
    relay, file = relay_to(filled), tmp_path / "sweep.bundle"
    done(filled.directory, "export", str(file), "--address", f"unix:{relay.path}")
    assert relay.spoken == 1

    empty = start_daemon("two")
    empty.handshake()
    with Relay(tmp_path / "other.sock", empty.directory / "daemon.sock") as other:
        secret = str(filled.directory / "secret")
        said = done(empty.directory, "import", str(file), "--secret-file", secret, "--address", f"unix:{other.path}")

    assert "imported 6 artifacts" in said
    assert other.spoken == 1


def test_after_a_call_that_nobody_answered_the_next_one_connects_anew(start_daemon: Start) -> None:
    daemon = start_daemon("one")
    with OperatorClient.of(DaemonLocation(directory=daemon.directory, address=None)) as operator:
        client = InventoryClient(operator)
        assert client.artifacts() == []
        daemon.process.kill()
        daemon.process.wait(20)
        with pytest.raises(NotRunningError):
            client.artifacts()
        with pytest.raises(NotRunningError):
            client.artifacts()

        start_daemon("one")

        assert client.artifacts() == []
