from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio
import pytest

from compile_wire.errors import MalformedError
from compiler_daemon.rpc.status import to_status


class GoneCaller:
    """A call whose caller hung up before the answer, so that gRPC takes no status for it any more."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def abort(self, code: grpc.StatusCode, details: str = "") -> None:
        raise self._error


@pytest.mark.parametrize("hung_up", [grpc.aio.UsageError("finished"), grpc.aio.InternalError("batch failed")], ids=repr)
@pytest.mark.parametrize("error", [MalformedError("broken"), RuntimeError("a bug")], ids=["refusal", "bug"])
def test_a_refusal_that_nobody_hears_ends_the_call_as_cancelled(
    hung_up: Exception, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    context: Any = GoneCaller(hung_up)

    async def answer() -> None:
        async with to_status("/Service/Method", context):
            raise error

    with caplog.at_level(logging.WARNING), pytest.raises(asyncio.CancelledError):
        asyncio.run(answer())

    assert len(caplog.records) == isinstance(error, RuntimeError)
