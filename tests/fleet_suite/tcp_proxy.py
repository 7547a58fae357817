"""A proxy before a tier's server that delays answers, ends them in the middle, or refuses what would be stored."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

Pass = Callable[[bytes, int], tuple[bytes, bool]]
"""Called with what the server sent and how many bytes it had sent before; returns what goes on, and whether to cut."""


class TcpProxy:
    """Forwards connections from a port of the loopback interface; what comes back goes through `answers`."""

    def __init__(
        self, connect: Callable[[], socket.socket], answers: Pass, refuses: bytes = b"", refusal: bytes = b""
    ) -> None:
        """A request whose first bytes are `refuses` is answered with `refusal` and goes no further."""
        self._connect = connect
        self._answers = answers
        self._refuses = refuses
        self._refusal = refusal
        self.refused = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def close(self) -> None:
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)

    def accept(self) -> None:
        """Forward connections until closed."""
        while True:
            try:
                client, _ = self._listener.accept()
                server = self._connect()
            except OSError:
                return
            self._open += [client, server]
            self._run(self._ask, client, server)
            self._run(self._answer, server, client)

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def start(self) -> None:
        self._run(self.accept)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self._refuses and data.startswith(self._refuses):
                    self.refused += 1
                    client.sendall(self._refusal)
                    client.shutdown(socket.SHUT_RDWR)
                    return
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                passed, cut = self._answers(data, sent)
                sent += len(data)
                client.sendall(passed)
                if cut:
                    client.shutdown(socket.SHUT_RDWR)
                    return
            client.shutdown(socket.SHUT_WR)


def delayed(seconds: float) -> Pass:
    """Let each answer take so long."""

    def answers(data: bytes, _sent: int) -> tuple[bytes, bool]:
        time.sleep(seconds)
        return data, False

    return answers


def ended_after(limit: int) -> Pass:
    """End a connection after so many bytes of answers."""

    def answers(data: bytes, sent: int) -> tuple[bytes, bool]:
        left = limit - sent
        return data[:left], len(data) >= left

    return answers


@contextlib.contextmanager
def proxied(connect: Callable[[], socket.socket], answers: Pass, **more: bytes) -> Iterator[TcpProxy]:
    """Run one while the block lasts."""
    proxy = TcpProxy(connect, answers, **more)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
