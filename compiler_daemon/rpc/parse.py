"""Bytes become messages here, after the token was seen; bytes that are no message are INVALID_ARGUMENT.

Left to gRPC, they would be parsed before any interceptor's code runs, and a failure would be UNKNOWN to the caller and
a traceback in the log: for anyone who can reach the socket.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from compiler_daemon.rpc.around import Context, behaviour_of, refuse, remade

_COMPLAINT = "the bytes of the request are no message of this call"


class ParseInterceptor(grpc.aio.ServerInterceptor):
    """Parses requests inside the handler. The innermost interceptor: those outside pass bytes on, unread."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of the called method."""
        handler = await continuation(handler_call_details)
        return handler if handler is None or handler.request_deserializer is None else _wrap(handler)


def _wrap(handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
    deserialize: Any = handler.request_deserializer
    behaviour = behaviour_of(handler)

    async def parsed(data: bytes, context: Context) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, _COMPLAINT)

    async def each(messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
        async for data in messages:
            yield await parsed(data, context)

    async def request_of(given: Any, context: Context) -> Any:
        return each(given, context) if handler.request_streaming else await parsed(given, context)

    async def plain(given: Any, context: Context) -> Any:
        return await behaviour(await request_of(given, context), context)

    async def generating(given: Any, context: Context) -> AsyncIterator[Any]:
        async with aclosing(behaviour(await request_of(given, context), context)) as answers:
            async for answer in answers:
                yield answer

    # A handler of streams may also be one that writes them; gRPC tells the two apart in the same way.
    generates = inspect.isasyncgenfunction(behaviour)
    return remade(handler, generating if generates else plain, None)
