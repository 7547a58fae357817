"""The one place where exceptions become status codes.

Our errors name their code; malformed bytes are INVALID_ARGUMENT; whatever else is raised is a bug of ours, logged whole
and told as "internal error", because its text was not written for a caller.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from compile_wire.errors import WireError
from compiler_daemon.errors import DaemonError
from compiler_daemon.rpc.around import Context, refuse
from compiler_daemon.store import StoreError

logger = logging.getLogger(__name__)


@asynccontextmanager
async def to_status(method: str, context: Context) -> AsyncIterator[None]:
    """Abort the call with the code of whatever is raised inside."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except WireError as error:
        await refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except (DaemonError, StoreError) as error:
        await refuse(context, grpc.StatusCode[error.code], str(error))
    except Exception:
        logger.exception("%s failed", method)
        await refuse(context, grpc.StatusCode.INTERNAL, "internal error")
