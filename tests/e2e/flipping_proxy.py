"""A proxy for a Unix socket that changes one byte after a marker, on the way from server to client."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

_DISTANCE = 2000
"""Bytes after the marker: the place is inside the blob that begins with it, and far from the message around it."""


class FlippingProxy:
    """Forwards every connection and flips a bit `_DISTANCE` bytes after each place where the marker passes."""

    def __init__(self, path: Path, target: str, *, after: bytes) -> None:
        self.path = path
        self.flipped = 0
        self._target = target
        self._marker = after
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> FlippingProxy:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)

    def _run(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type] # a callable
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
            self._open += [client, server]
            self._run(self._forward, client, server, False)
            self._run(self._forward, server, client, True)

    def _forward(self, source: socket.socket, sink: socket.socket, change: bool) -> None:
        countdown = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if change:
                    data, countdown = self._changed(bytearray(data), countdown)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _changed(self, data: bytearray, countdown: int) -> tuple[bytes, int]:
        position = 0
        while position < len(data):
            if not countdown:
                found = data.find(self._marker, position)
                if found < 0:
                    break
                position, countdown = found + len(self._marker), _DISTANCE
            step = min(countdown, len(data) - position)
            position, countdown = position + step, countdown - step
            if not countdown and position < len(data):
                data[position] ^= 1
                self.flipped += 1
        return bytes(data), countdown
