"""Which of a scheduler's workers compile for which environment: each is asked once, and again when it may have changed.

A worker that does not answer, has not this program, or cannot start one of our workers is left out, with its reason.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distributed import Client

from compile_wire.digest import Digest
from compile_wire.errors import WireError
from compiler_daemon.farm import node
from compiler_daemon.worker.protocol import HEADER, decode_body
from compiler_daemon.workers.frames import read_hello

logger = logging.getLogger(__name__)

_ASK_AGAIN_S = 60.0
"""Where none of our workers came up."""
_VALID_S = 300.0
"""How long a hello stands: a virtual environment changes when somebody upgrades it."""
_BEFORE_ALL = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Remembers what one of Dask's workers has said."""

    slots: int
    environment: Digest | None
    reason: str
    until: float


class Places:
    """Knows Dask's workers by address."""

    def __init__(self, client: Client, limits: bytes, token: str) -> None:
        """`limits` are what our workers there are started with; `token` makes the names of tasks ours."""
        self._client = client
        self._limits = limits
        self._token = token
        self._known: dict[str, Place] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._asked = 0

    async def look(self) -> None:
        """See who is there now; raise `OSError` where the scheduler does not answer."""
        if (scheduler := self._client.scheduler) is None:
            raise ConnectionError("the scheduler has gone")
        identity: Any = await scheduler.identity(n_workers=-1)
        there: Mapping[str, Any] = {
            address: worker for address, worker in identity["workers"].items() if worker.get("status") == "running"
        }
        for address in self._known.keys() - there.keys():
            del self._known[address]
        for address in self._asking.keys() - there.keys():
            self._asking[address].cancel()  # it would never answer
        for address, worker in there.items():
            known = self._known.get(address)
            if address not in self._asking and (known is None or known.until < time.monotonic()):
                task = asyncio.create_task(self._ask(address, max(1, int(worker["nthreads"]))))
                self._asking[address] = task

    def forget(self, environment: Digest) -> None:
        """Ask those again that have claimed the environment: one of them has another."""
        for address, place in list(self._known.items()):
            if place.environment == environment:
                del self._known[address]

    def of(self, environment: Digest) -> list[str]:
        """Return the addresses of those that compile for the environment."""
        return [address for address, place in self._known.items() if place.environment == environment]

    def summary(self) -> dict[str, Any]:
        """Return what the daemon is told, without its type."""
        slots: Counter[str] = Counter()
        for place in self._known.values():
            if place.environment is not None:
                slots[place.environment] += place.slots
        reasons = sorted({place.reason for place in self._known.values() if place.reason})
        reason = "" if slots else "; ".join(reasons)[:1000] or ("" if self._asking else "it has no workers")
        return {"workers": len(self._known), "environments": dict(slots), "reason": reason}

    async def _ask(self, address: str, slots: int) -> None:
        self._asked += 1
        future = self._client.submit(
            node.introduce,
            self._limits,
            key=f"compiler-daemon-hello-{self._token}-{self._asked}",
            workers=[address],
            pure=False,
            priority=_BEFORE_ALL,
        )
        try:
            data = bytes(await future)
            hello = read_hello(decode_body(data[HEADER.size :]))
            place = Place(slots=slots, environment=hello.environment, reason="", until=time.monotonic() + _VALID_S)
        except asyncio.CancelledError:
            raise
        except WireError as error:
            place = _useless(slots, f"{address}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever the task raised there arrives here
            place = _useless(slots, f"{address}: {type(error).__name__}: {error}")
        finally:
            del self._asking[address]
            future.release()
        self._known[address] = place


def _useless(slots: int, reason: str) -> Place:
    return Place(slots=slots, environment=None, reason=reason[:300], until=time.monotonic() + _ASK_AGAIN_S)
