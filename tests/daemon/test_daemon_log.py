"""What gRPC itself writes into the daemon's log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # its compiled core has no stubs

from compiler_daemon.rpc.access_log import GRPC_LOGGER, is_no_left_client

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def filtered() -> Iterator[None]:
    """Filter gRPC's logger as `serve` does."""
    logger = logging.getLogger(GRPC_LOGGER)
    logger.addFilter(is_no_left_client)
    yield
    logger.removeFilter(is_no_left_client)


async def call(error: Exception) -> None:
    """Have a real server run a method that raises `error`, as errors below a real method would reach gRPC."""

    async def method(request: bytes, context: Any) -> bytes:
        raise error

    server = grpc.aio.server()
    handlers = {"Method": grpc.unary_unary_rpc_method_handler(method)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("some.Service", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.enable_http_proxy", 0)]) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/some.Service/Method")(b"", timeout=2)
    finally:
        await server.stop(0)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_client_that_left_while_it_was_answered_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    await call(cygrpc.ExecuteBatchError('Failed "execute_batch": (<SendStatusFromServerOperation>,)'))

    assert errors(caplog) == []
    (line,) = [record.getMessage() for record in caplog.records if record.name.endswith("access_log")]
    assert line.startswith("a client left while it was answered: ")
    assert "/some.Service/Method" in line


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a fault of ours"),
        cygrpc.ExecuteBatchError("Failed grpc_call_start_batch: 8 with grpc_call_error value: TOO_MANY_OPERATIONS"),
    ],
)
async def test_what_is_anybodys_fault_is_logged_as_before(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    await call(error)

    assert any("/some.Service/Method" in line for line in errors(caplog))
