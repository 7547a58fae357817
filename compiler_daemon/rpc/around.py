"""One way to wrap every kind of RPC handler, so that each interceptor is written once and not four times."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

import grpc
import grpc.aio

Context = grpc.aio.ServicerContext[Any, Any]
Around = Callable[[str, Context], AbstractAsyncContextManager[None]]
"""Given a method's full name and its call, what is done before and after; it may abort, and sees every exception."""

OPEN_SERVICES = ("/grpc.health.v1.",)
"""Left alone: a prober has no token, and what it learns, whether we serve, any connection attempt tells."""


def behaviour_of(handler: grpc.RpcMethodHandler[Any, Any]) -> Any:
    """Return the function behind a handler, of whichever kind the handler is."""
    return handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream


def remade(
    handler: grpc.RpcMethodHandler[Any, Any], behaviour: Any, request_deserializer: Any
) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler of the same kind with another function behind it."""
    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    made: grpc.RpcMethodHandler[Any, Any] = make(
        behaviour, request_deserializer=request_deserializer, response_serializer=handler.response_serializer
    )
    return made


async def refuse(context: Context, code: grpc.StatusCode, details: str) -> NoReturn:
    """End the call with a status; where the caller has gone there is nobody to tell, and it ends as cancelled."""
    try:
        await context.abort(code, details)
    except (grpc.aio.UsageError, grpc.aio.InternalError) as error:
        raise asyncio.CancelledError from error
    raise AssertionError("a call that was aborted goes on")


def _bare(error: grpc.aio.AbortError) -> grpc.aio.AbortError:
    """Return the error without the way it came.

    gRPC's state of a call and the error that ended it hold each other until the garbage collector comes round. The way
    leads over every frame that holds the request, and refused requests of megabytes would add up.
    """
    error.__traceback__ = error.__context__ = None
    return error


class AroundInterceptor(grpc.aio.ServerInterceptor):
    """Runs each handler inside a context manager."""

    def __init__(self, around: Around) -> None:
        self._around = around

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of the called method."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method.startswith(OPEN_SERVICES):
            return handler
        return self._wrap(method, handler)

    def _wrap(self, method: str, handler: grpc.RpcMethodHandler[Any, Any]) -> grpc.RpcMethodHandler[Any, Any]:
        around = self._around
        behaviour = behaviour_of(handler)

        async def unary(request: Any, context: Context) -> Any:
            try:
                async with around(method, context):
                    return await behaviour(request, context)
            except grpc.aio.AbortError as error:
                del request
                raise _bare(error) from None

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                async with around(method, context):
                    answers = behaviour(request, context)
                    try:
                        async for answer in answers:
                            yield answer
                    finally:
                        # Ended by us where the caller has gone: left to the collector it would end at any later time.
                        if inspect.isasyncgen(answers):
                            await answers.aclose()
            except grpc.aio.AbortError as error:
                del request
                raise _bare(error) from None

        return remade(handler, stream if handler.response_streaming else unary, handler.request_deserializer)
