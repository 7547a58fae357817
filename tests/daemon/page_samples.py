"""The shared parts of the page's tests: a daemon that serves a page, and plain HTTP as a script would speak it."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from compile_wire.v1 import page_pb2 as pb
from compile_wire.v1 import page_pb2_grpc as pb_grpc
from tests.daemon.daemon_process import DEADLINE_S, DaemonProcess


@dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str


class PageVisitor:
    """Requests a daemon's page over HTTP."""

    def __init__(self, daemon: DaemonProcess) -> None:
        self.daemon = daemon
        self.stub = pb_grpc.PageServiceStub(daemon.channel)
        self.url = self.stub.FindPage(pb.FindPageRequest(), **daemon.options()).url
        self.port = int(urlsplit(self.url).port or 0)
        self.token = (daemon.directory / "token").read_text().strip()

    def login_url(self) -> str:
        return str(self.stub.OpenPage(pb.OpenPageRequest(), **self.daemon.options()).url)

    def ask(self, target: str, *, method: str = "GET", token: bool = True, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        if token:
            headers["Authorization"] = f"Bearer {self.token}"
        try:
            connection.request(method, target, headers=headers)
            answer = connection.getresponse()
            return Answer(
                status=answer.status,
                headers={name.lower(): value for name, value in answer.getheaders()},
                text=answer.read().decode(),
            )
        finally:
            connection.close()

    def say(self, data: bytes, *, deadline_s: float = DEADLINE_S) -> bytes:
        """Send the bytes unchanged; return everything that arrives until the other side closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=deadline_s) as connection:
            received = b""
            try:
                connection.sendall(data)
                while part := connection.recv(65536):
                    received += part
            except ConnectionError:
                pass
            return received
