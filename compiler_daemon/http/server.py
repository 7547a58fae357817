"""HTTP/1.1 on the loopback interface, for reading only.

Guarantees: only GET and HEAD, only without a body, only for a host that is this machine (a page elsewhere that rebinds
its name to 127.0.0.1 gets nothing). Every length is bounded, every wait has an end, and so has the number of
connections: garbage, silence and floods cost their own connection and nothing else, and where there are too many, the
oldest that has not asked for anything goes. The protocol is read by h11.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import h11

from compiler_daemon.errors import AddressError

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"

_MAX_HEAD_BYTES = 16 * 1024
_MAX_TARGET = 2048
_MAX_HEADERS = 100
_MAX_PARAMETERS = 8
_READ_BYTES = 8192

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class HttpServerConfig:
    """Configures how much of the daemon a visitor of the page may take."""

    max_connections: int = 64
    """A browser opens six; Prometheus one."""
    head_s: float = 10.0
    """From the first moment of a connection, or the end of the last answer, to a complete request."""
    answer_s: float = 20.0
    """To make an answer, and then again to have it taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Describes one HTTP request."""

    path: str
    parameters: Mapping[str, str]
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case. Of a name that comes twice the last counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """Describes one HTTP response."""

    status: int = 200
    kind: str = "text/html; charset=utf-8"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]
Plain = Callable[[int, str], Response]
"""Makes an answer from a status and a sentence."""


class HttpServer:
    """Serves HTTP on a loopback port: the listener and its connections."""

    def __init__(self, handler: Handler, plain: Plain, config: HttpServerConfig) -> None:
        self._handler = handler
        self._plain = plain
        self._config = config
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._silent: dict[_Connection, None] = {}
        """Those that have not asked yet, or not again; the oldest first."""
        self.port = 0

    async def listen(self, port: int) -> int:
        """Begin to answer on a port, 0 for any; return it. Raises `AddressError` where it is taken."""
        try:
            self._server = await asyncio.start_server(self._accept, HOST, port, limit=_READ_BYTES, backlog=64)
        except OSError as error:
            raise AddressError(
                f"port {port} of {HOST} cannot be used for the page: {error.strerror}; choose another --page-port"
            ) from error
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def close(self) -> None:
        """Answer nobody any more."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= self._config.max_connections:
            if not self._silent:
                writer.transport.abort()
                return
            next(iter(self._silent)).drop()
        self._connections.add(task)
        try:
            await _Connection(reader, writer, self).serve()
        except (OSError, TimeoutError, h11.LocalProtocolError) as error:
            logger.debug("a connection ended: %r", error)
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                # What was not taken in time is dropped: a closed transport would wait for ever to flush it.
                if writer.transport.get_write_buffer_size():
                    writer.transport.abort()

    @contextlib.contextmanager
    def waiting(self, connection: _Connection) -> Iterator[None]:
        """Count the connection among the silent ones, which may have to go for others, while the block lasts."""
        self._silent[connection] = None
        try:
            yield
        finally:
            self._silent.pop(connection, None)

    def forget(self, connection: _Connection) -> None:
        """Drop a connection that has ended from the silent ones."""
        self._silent.pop(connection, None)

    async def answer(self, event: h11.Request) -> Response:
        """Return the answer to a request whose form is sound."""
        config = self._config
        try:
            request = self._checked(event)
        except _RefusedError as refusal:
            return self._plain(refusal.status, refusal.text)
        try:
            async with asyncio.timeout(config.answer_s):
                return await self._handler(request)
        except TimeoutError:
            return self._plain(503, "The daemon is too busy to answer. Try again in a moment.")
        except Exception:
            logger.exception("%s failed", request.path[:80])
            return self._plain(500, "Internal error: the daemon's log says more.")

    def refusal(self, status: int, text: str) -> Response:
        """Return an answer that says no."""
        return self._plain(status, text)

    @property
    def config(self) -> HttpServerConfig:
        """The limits of each connection."""
        return self._config

    def _checked(self, event: h11.Request) -> Request:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        if not self._is_ours(headers.get("host", "")):
            raise _RefusedError(421, f"This is {HOST}:{self.port}, and answers under no other name.")
        if event.method not in (b"GET", b"HEAD"):
            raise _RefusedError(405, "Only GET and HEAD: nothing can be changed here.")
        if len(event.target) > _MAX_TARGET:
            raise _RefusedError(414, "The address is too long.")
        try:
            parts = urlsplit(event.target.decode("ascii"))
            parameters = parse_qs(parts.query, max_num_fields=_MAX_PARAMETERS, errors="strict")
        except ValueError:
            raise _RefusedError(400, "The address cannot be read.") from None
        return Request(
            path=parts.path, parameters={name: values[-1] for name, values in parameters.items()}, headers=headers
        )

    def _is_ours(self, host: str) -> bool:
        name, _, port = host.rpartition(":")
        if port != str(self.port):
            return False
        if name == "localhost":
            return True
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(name.strip("[]")).is_loopback
        return False


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class _Connection:
    """One connection: requests one after the other, each read whole before it is answered."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: HttpServer) -> None:
        self._reader = reader
        self._writer = writer
        self._server = server
        self._protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        raw = writer.get_extra_info("socket")
        if isinstance(raw, socket.socket):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def serve(self) -> None:
        """Answer until the other side goes, errs, or takes too long."""
        while True:
            try:
                with self._server.waiting(self):
                    async with asyncio.timeout(self._server.config.head_s):
                        request = await self._request()
            except h11.RemoteProtocolError as error:
                status = error.error_status_hint if 400 <= error.error_status_hint < 500 else 400
                await self._send(self._server.refusal(status, "This is no request that can be read."), head=False)
                return
            if request is None:
                return
            if isinstance(request, Response):
                await self._send(request, head=False)
                return
            await self._send(await self._server.answer(request), head=request.method == b"HEAD")
            if self._protocol.our_state is not h11.DONE or self._protocol.their_state is not h11.DONE:
                return
            self._protocol.start_next_cycle()

    def drop(self) -> None:
        """End the connection at once, for another's sake."""
        self._server.forget(self)
        self._writer.transport.abort()

    async def _request(self) -> h11.Request | Response | None:
        """Return the next request; a refusal where it has a body; None where nobody asks any more."""
        event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        if len(event.headers) > _MAX_HEADERS:
            return self._server.refusal(431, "Too many headers.")
        if any(
            name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
            for name, value in event.headers
        ):
            return self._server.refusal(413, "A request has no body here.")
        end = await self._event()
        return event if isinstance(end, h11.EndOfMessage) else None

    async def _event(self) -> object:
        while (event := self._protocol.next_event()) is h11.NEED_DATA:
            self._protocol.receive_data(await self._reader.read(_READ_BYTES))
        return event

    async def _send(self, response: Response, *, head: bool) -> None:
        if self._protocol.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = {
            **_HEADERS,
            "Content-Type": response.kind,
            "Content-Length": str(len(response.body)),
            **response.headers,
        }
        if response.status in (400, 413, 421, 431):
            headers["Connection"] = "close"
        out = [self._protocol.send(h11.Response(status_code=response.status, headers=list(headers.items())))]
        if response.body and not head:
            out.append(self._protocol.send(h11.Data(data=response.body)))
        out.append(self._protocol.send(h11.EndOfMessage()))
        self._writer.write(b"".join(part for part in out if part))
        async with asyncio.timeout(self._server.config.answer_s):
            await self._writer.drain()
