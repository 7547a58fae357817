"""The tiers of a daemon, in order: asked one after the other, and what one has, those before it get as well.

Guarantees: nothing here raises for a tier that fails. A lookup waits within a budget, and the fetch goes on after it
for whoever asks next; of all who ask for a key at once there is one fetch. What is to be written waits in memory, at
most `QUEUE_BYTES` of it, the oldest dropped first and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from compile_wire.digest import Digest, digest_of
from compiler_daemon import metrics
from compiler_daemon.errors import TierError
from compiler_daemon.text.findings import Finding, problem
from compiler_daemon.tier.address import compile_sha
from compiler_daemon.tier.lease_records import this_host
from compiler_daemon.tier.leases import Held, Refused, Waiting
from compiler_daemon.tier.object_errors import ObjectError
from compiler_daemon.tier.packed import pack, pack_facts
from compiler_daemon.tier.signer_files import Signers
from compiler_daemon.tier.signers import signer_findings
from compiler_daemon.tier.tier import NAMESPACE, Found, Tier, TierView

logger = logging.getLogger(__name__)

QUEUE_BYTES = 256 * 2**20
"""Of objects that wait to be written."""

_SHARE_S = 2.0
"""A compile's waiters wait so long for its artifact to be in the tier: longer, and they have it without agreement."""

_CLOSE_S = 3.0


Name = tuple[Digest, str, frozenset[Digest]]
"""What is looked for: an environment, a key, and the artifacts of it that were tried."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """An artifact as it is to be shared."""

    environment: Digest
    key: str
    manifest: bytes
    blobs: Mapping[Digest, bytes]
    graph: bytes | None
    facts: bytes
    """The environment's, as far as they are known."""
    tried: frozenset[Digest] = frozenset()
    """Artifacts of the key whose guards did not hold where this one was asked for."""


@dataclass(slots=True)
class _Fetch:
    task: asyncio.Task[Any]
    asking: Tier | None = None


class Tiers:
    """Reads from a daemon's tiers, writes to them, and holds leases on compiles."""

    def __init__(self, tiers: Sequence[Tier], *, signers: Signers) -> None:
        self._tiers = tuple(tiers)
        self._signers = signers
        self._fetches: dict[Name, _Fetch] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._queue: deque[tuple[Tier, int, Callable[[], Awaitable[None]]]] = deque()
        self._queued_bytes = 0
        self._waiting = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    async def fetch_soon(self, name: Name, fetch: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Return the same as `fetch`, if it ends within the budget of a lookup; else None, and it goes on."""
        budget_s = max((tier.budget.seconds() for tier in self._tiers if tier.breaker.reads.allows()), default=0.0)
        if not budget_s:
            return None
        begun = self._fetching(name, fetch)
        await asyncio.wait({begun.task}, timeout=budget_s)
        if begun.task.done():
            result: T = begun.task.result()
            return result
        if begun.asking is not None:
            begun.asking.breaker.reads.late(budget_s)
            begun.asking.count(metrics.TIER_LATE)
        return None

    async def fetch(self, name: Name, fetch: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what a fetch comes to, however long a tier takes that answers at all.

        Of all who ask for a name at once one fetches, and it is over only when what it found is stored: whoever asks
        after it finds it here.
        """
        result: T = await asyncio.shield(self._fetching(name, fetch).task)
        return result

    async def find(self, name: Name) -> Found | None:
        """Return the artifact of the first tier that has one, and have it written to those before it."""
        environment, key, tried = name
        passed: list[Tier] = []
        for tier in self._tiers:
            if name in self._fetches:
                self._fetches[name].asking = tier
            try:
                found = await tier.find(environment, key, tried)
            except TierError as error:
                logger.debug("%s: %s", tier.address, error)
                continue
            if found is not None:
                for before in passed:
                    self._later(before, len(found.data), _putting(before, found, environment, key))
                return found
            passed.append(tier)
        return None

    async def take(self, environment: Digest, key: str, expected_s: float) -> Held | Waiting | Refused | None:
        """Take the lease of a compile; return None where there is none to be had, and every node is for itself.

        Who cannot sign takes none: nobody else would get anything out of what it compiles.
        """
        tier = self._writable()
        if tier is None or self._signers.current().own is None:
            return None
        try:
            with tier.breaker.writes.asking():
                taken = await tier.leases.acquire(compile_sha(NAMESPACE, environment, key), expected_s)
        except TierError as error:
            tier.count(metrics.TIER_FAILED)
            logger.info("no lease for key %s, it is compiled without: %s", key[:16], error)
            return None
        if isinstance(taken, Waiting):
            tier.count(metrics.TIER_WAITED)
        return taken

    def left(self, environment: Digest, key: str) -> None:
        """Forget that this node has waited for a compile of another's."""
        for tier in self._tiers:
            tier.leases.left(compile_sha(NAMESPACE, environment, key))

    async def share(self, offer: Offer) -> Found | None:
        """Put what was compiled here into the tiers; return another's artifact that is to be used instead.

        Waits for the first tier that can be written to, and no longer than a trainer would bear.
        """
        tier = self._writable()
        if tier is None:
            return None
        data = await self._packed(offer)
        if data is None:
            return None
        task = self._begin(self._offered(tier, data, offer))
        await asyncio.wait({task}, timeout=_SHARE_S)
        self._write_to([other for other in self._tiers if other is not tier], data, offer)
        if not task.done():
            tier.count(metrics.TIER_LATE)
            logger.info("%s has not taken key %s yet: it goes on in the background", tier.address, offer.key[:16])
            return None
        found: Found | None = task.result()
        if found is None or found.digest == digest_of(offer.manifest):
            return None
        tier.count(metrics.TIER_ADOPTED)
        return found

    async def share_later(self, offer: Offer) -> None:
        """Have what a trainer published written to all tiers in the background."""
        if self._writable() is not None and (data := await self._packed(offer)) is not None:
            self._write_to(self._tiers, data, offer)

    async def facts_soon(self, environment: Digest) -> bytes:
        """Return an environment's facts, if a tier gives them within the budget of a lookup."""
        budget_s = max((tier.budget.seconds() for tier in self._tiers if tier.breaker.reads.allows()), default=0.0)
        if not budget_s:
            return b""
        task = self._begin(self._facts(environment))
        await asyncio.wait({task}, timeout=budget_s)
        return task.result() if task.done() else b""

    def offer_facts(self, environment: Digest, facts: bytes) -> None:
        """Have an environment's facts written to all tiers in the background."""
        own = self._signers.current().own
        if own is None or not facts:
            return
        try:
            data = pack_facts(facts, environment, signer=own, host=this_host())
        except ObjectError as error:
            logger.warning("the facts of environment %s are not shared: %s", environment[:12], error)
            return
        for tier in self._tiers:
            self._later(tier, len(data), lambda tier=tier: tier.offer_facts(data, environment, facts))  # type: ignore[misc]

    @property
    def are_far(self) -> bool:
        """Whether one of them is, so that it pays to ask it ahead."""
        return any(tier.address.is_far for tier in self._tiers)

    async def list_of(self, environment: Digest, program: str) -> bytes:
        """Return the list of what a program asked for last, from the first tier that has one."""
        for tier in self._tiers:
            with contextlib.suppress(TierError):
                if data := await tier.list_of(environment, program):
                    return data
        return b""

    def offer_list(self, environment: Digest, program: str, data: bytes) -> None:
        """Have the list of what a program asked for written to all tiers in the background."""
        if self._signers.current().own is None:
            return
        for tier in self._tiers:
            self._later(tier, len(data), lambda tier=tier: tier.put_list(environment, program, data))  # type: ignore[misc]

    def views(self) -> list[TierView]:
        """Return each tier as an operator sees it."""
        waiting: Counter[str] = Counter()
        for tier, size, _ in self._queue:
            waiting[str(tier.address)] += size
        return [replace(tier.view(), waiting_bytes=waiting[str(tier.address)]) for tier in self._tiers]

    async def say_what_is_wrong(self) -> None:
        """Look at each tier once, and log what is not as it should be: never a reason not to start."""
        _log(signer_findings(self._signers.current()), "")
        found = await asyncio.gather(*(tier.check() for tier in self._tiers), return_exceptions=True)
        for tier, result in zip(self._tiers, found, strict=True):
            _log([problem("tier", str(result))] if isinstance(result, BaseException) else result, str(tier.address))

    @property
    def queued_bytes(self) -> int:
        """What waits to be written."""
        return self._queued_bytes

    async def run(self) -> None:
        """Write what waits, one object after the other, until cancelled."""
        while True:
            await self._waiting.wait()
            while self._queue:
                self._idle.clear()
                _, size, write = self._queue.popleft()
                self._queued_bytes -= size
                await write()
            self._waiting.clear()
            self._idle.set()

    async def close(self) -> None:
        """Give what waits a moment to be written, release all leases, and leave the engines."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._idle.wait()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *(tier.close() for tier in self._tiers), return_exceptions=True)

    def _fetching(self, name: Name, fetch: Callable[[], Coroutine[Any, Any, Any]]) -> _Fetch:
        if name not in self._fetches:
            begun = self._fetches[name] = _Fetch(self._begin(fetch()))
            begun.task.add_done_callback(lambda _: self._fetches.pop(name, None))
        return self._fetches[name]

    async def _facts(self, environment: Digest) -> bytes:
        for tier in self._tiers:
            with contextlib.suppress(TierError):
                if facts := await tier.facts(environment):
                    return facts
        return b""

    async def _packed(self, offer: Offer) -> bytes | None:
        own = self._signers.current().own
        if own is None:
            return None
        facts = digest_of(offer.facts) if offer.facts else ""
        try:
            return await asyncio.to_thread(
                pack, offer.manifest, offer.blobs, graph=offer.graph, facts=facts, signer=own, host=this_host()
            )
        except ObjectError as error:
            logger.warning("key %s is not shared: %s", offer.key[:16], error)
            return None

    async def _offered(self, tier: Tier, data: bytes, offer: Offer) -> Found | None:
        try:
            return await tier.offer(data, offer.environment, offer.key, offer.tried)
        except TierError as error:
            tier.count(metrics.TIER_FAILED)
            logger.info("%s does not take key %s: %s", tier.address, offer.key[:16], error)
            return None

    def _write_to(self, tiers: Sequence[Tier], data: bytes, offer: Offer) -> None:
        for tier in tiers:

            async def write(tier: Tier = tier) -> None:
                await self._offered(tier, data, offer)

            self._later(tier, len(data), write)

    def _later(self, tier: Tier, size: int, write: Callable[[], Awaitable[Any]]) -> None:
        """Queue a write; the oldest that wait are dropped where there would be too many bytes."""

        async def attempt() -> None:
            try:
                await write()
            except TierError as error:
                tier.count(metrics.TIER_FAILED)
                logger.debug("%s: %s", tier.address, error)

        while self._queue and self._queued_bytes + size > QUEUE_BYTES:
            loser, dropped, _ = self._queue.popleft()
            self._queued_bytes -= dropped
            loser.count(metrics.TIER_DROPPED)
        self._queue.append((tier, size, attempt))
        self._queued_bytes += size
        self._waiting.set()
        self._idle.clear()

    def _writable(self) -> Tier | None:
        return next((tier for tier in self._tiers if tier.breaker.writes.allows()), None)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _log(findings: Sequence[Finding], where: str) -> None:
    levels = {"problem": logging.ERROR, "note": logging.WARNING}
    for finding in findings:
        if finding.level in levels:
            text = finding.text if where in finding.text else f"{where}: {finding.text}"
            logger.log(levels[finding.level], "%s: %s", finding.check, text)


def _putting(tier: Tier, found: Found, environment: Digest, key: str) -> Callable[[], Awaitable[Any]]:
    return lambda: tier.offer(found.data, environment, key, ())
