"""The daemon's own handlers behind its own interceptors, called in this process: what the transport costs is left out.

Nothing is built anew here: `compiler_daemon.app.serve` wires all of it, and what it registers at the gRPC server is
noted on the way.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import grpc
import grpc.aio
from fuzz_messages import WRONG_TOKEN, Case, Method

from compile_wire.limits import MAX_MESSAGE_BYTES, PROTOCOL_VERSION
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compiler_daemon.app import serve
from compiler_daemon.config import DaemonConfig, DaemonLocation, PoolConfig

_READY_S = 120.0
_QUIET_S = 0.02
_COMPILE = "/compiler_daemon.v1.CompileService"


class _Details(NamedTuple):
    method: str
    invocation_metadata: Any


class Inside:
    """Handlers by path. Made by `of`."""

    def __init__(self, token: str, handlers: Sequence[Any], interceptors: Sequence[Any]) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._handlers = handlers
        self._interceptors = interceptors
        self._wrapped: dict[str, Any] = {}

    @classmethod
    @asynccontextmanager
    async def of(cls, directory: Path) -> AsyncIterator[Inside]:
        """Serve a directory in this process for the length of the block. Its workers never come up."""
        location = DaemonLocation.resolve({}, directory=directory, address=None)
        config = DaemonConfig(
            directory=location.directory,
            address=location.default_address,
            pool=PoolConfig(command=("-c", "raise SystemExit('no worker here')"), retry_start_s=1e6),
        )
        handlers: list[Any] = []
        interceptors: list[Any] = []
        ready = asyncio.Event()
        with _noting(handlers, interceptors):
            serving = asyncio.create_task(serve(config, on_ready=lambda _: ready.set()))
            async with asyncio.timeout(_READY_S):
                await ready.wait()
        token = await asyncio.to_thread((directory / "token").read_text)
        inside = cls(token.strip(), handlers, interceptors)
        try:
            yield inside
        finally:
            await inside.expect("/compiler_daemon.v1.AdminService/Shutdown", pb.ShutdownRequest())
            await serving

    async def publish(self, requests: Sequence[pb.PublishArtifactRequest], fields: Mapping[str, str]) -> None:
        """Store what the cases are about."""
        greeting = pb.HandshakeRequest(protocol_version=PROTOCOL_VERSION, environment=fields)
        await self.expect(f"{_COMPILE}/Handshake", greeting)
        for request in requests:
            await self.expect(f"{_COMPILE}/PublishArtifact", request)

    async def call(self, method: Method, case: Case) -> tuple[str, str]:
        """Make one call, as it would be after the transport."""
        if any(len(message) > MAX_MESSAGE_BYTES for message in case.messages):
            return "RESOURCE_EXHAUSTED", "the transport refuses it"
        metadata: Any = {"no token": (), "wrong token": WRONG_TOKEN}.get(case.manner, self._metadata)
        answer = self._answer(method.path, method.streams, case.messages, metadata)
        if case.manner not in ("cancelled", "hurried"):
            return await answer
        work = asyncio.ensure_future(answer)
        await asyncio.wait([work], timeout=0.0005)
        if not work.cancel():
            return work.result()
        await asyncio.wait([work])
        return ("CANCELLED", "") if work.cancelled() else work.result()

    async def expect(self, path: str, request: Any) -> None:
        """Make a call that must go well."""
        status, text = await self._answer(path, (False, False), [request.SerializeToString()], self._metadata)
        if status != "OK":
            raise RuntimeError(f"{path}: {status}: {text}")

    async def _answer(
        self, path: str, streams: tuple[bool, bool], messages: Sequence[bytes], metadata: Any
    ) -> tuple[str, str]:
        handler = await self._handler(path, metadata)
        if handler is None:
            return "UNIMPLEMENTED", path
        context: Any = _Context(metadata)
        many_in, many_out = streams
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        given: Any = _each(messages) if many_in else messages[0]
        try:
            if many_out and inspect.isasyncgenfunction(behaviour):
                async with aclosing(behaviour(given, context)) as answers:
                    async for answer in answers:
                        handler.response_serializer(answer)
            elif many_out:  # it writes for as long as somebody listens
                await asyncio.wait_for(behaviour(given, context), _QUIET_S)
            else:
                handler.response_serializer(await behaviour(given, context))
        except grpc.aio.AbortError:
            return context.status, context.text
        except TimeoutError:
            return "OK", "left"
        except Exception as error:  # noqa: BLE001 - gRPC would make UNKNOWN of it, and a traceback in the log
            return "UNKNOWN", repr(error)
        return "OK", ""

    async def _handler(self, path: str, metadata: Any) -> Any:
        if path not in self._wrapped:
            continuation: Any = self._find
            for interceptor in reversed(self._interceptors):
                continuation = _step(interceptor, continuation)
            self._wrapped[path] = await continuation(_Details(path, metadata))
        return self._wrapped[path]

    async def _find(self, details: Any) -> Any:
        return next((found for one in self._handlers if (found := one.service(details)) is not None), None)


class _Context:
    """A call as handlers see it. What no handler uses today is missing, and an AttributeError, not a wrong answer."""

    def __init__(self, metadata: Any) -> None:
        self._metadata = metadata
        self.status = "OK"
        self.text = ""

    def invocation_metadata(self) -> Any:
        return self._metadata

    def auth_context(self) -> Mapping[str, Any]:
        return {}

    def peer(self) -> str:
        return "unix:"

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode[self.status]

    def done(self) -> bool:
        return False

    async def write(self, message: Any) -> None:
        message.SerializeToString()

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        self.status, self.text = code.name, details
        raise grpc.aio.AbortError


class _Noting:
    """A server that also says what is registered at it."""

    def __init__(self, server: Any, handlers: list[Any]) -> None:
        self._server = server
        self._handlers = handlers

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self._handlers.extend(handlers)
        self._server.add_generic_rpc_handlers(handlers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)


@contextmanager
def _noting(handlers: list[Any], interceptors: list[Any]) -> Iterator[None]:
    make = grpc.aio.server

    def server(*arguments: Any, **options: Any) -> Any:
        interceptors.extend(options.get("interceptors") or ())
        return _Noting(make(*arguments, **options), handlers)

    with mock.patch.object(grpc.aio, "server", server):
        yield


def _step(interceptor: Any, continuation: Any) -> Any:
    async def run(details: Any) -> Any:
        return await interceptor.intercept_service(continuation, details)

    return run


async def _each(messages: Sequence[bytes]) -> AsyncIterator[bytes]:
    for message in messages:
        yield message
