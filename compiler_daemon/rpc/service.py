"""One service as the server takes it: its name, and how it is added. Each servicer makes its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """Names a service, and adds its servicer to a server."""

    name: str
    """In full, as health checks and reflection call it."""
    add: Callable[[grpc.aio.Server], None]
