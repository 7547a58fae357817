"""Ports of the loopback interface for servers that must be told theirs."""

from __future__ import annotations

import contextlib
import random
import socket

from benches.harness.measure import BenchError

_PORTS = range(12_000, 16_000)
"""Below those that systems give to outgoing connections: one of these would take the port before its server does."""

_TRIES = 1000


def free_ports(count: int) -> list[int]:
    """Return ports on which nobody listens now; raise `BenchError` where there are not as many."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        for port in random.sample(_PORTS, _TRIES):
            if len(found) == count:
                return found
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found.append(port)
    raise BenchError(f"{count} free ports were not found")
