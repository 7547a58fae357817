"""One tier of a daemon: what it has is found and verified, and what it lacks is put there.

Guarantees: what comes out of it was signed by somebody who is trusted, for the key that was asked for; anything else is
a miss, counted by its reason, and left where it is for whoever may remove it. A tier that fails is left alone for a
while (`breaker`), so that no call is made that is known to be in vain.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from compile_wire.digest import Digest, digest_of
from compile_wire.facts import decode_facts
from compiler_daemon import metrics
from compiler_daemon.errors import TierError, TooLargeError
from compiler_daemon.text.findings import Finding
from compiler_daemon.tier.address import SLOTS, TierAddress, facts_name, list_name, object_name
from compiler_daemon.tier.breaker import BreakerView, TierBreaker
from compiler_daemon.tier.budget import ReadBudget
from compiler_daemon.tier.engines import Engine
from compiler_daemon.tier.header import MAX_HEADER_BYTES, MAX_PACKED_BYTES
from compiler_daemon.tier.leases import LeaseConfig, Leases
from compiler_daemon.tier.object_errors import ObjectError
from compiler_daemon.tier.packed import MAX_FACTS_BYTES, Accept, Unpacked, unpack, unpack_facts
from compiler_daemon.tier.signer_files import Signers

logger = logging.getLogger(__name__)

NAMESPACE = "main"
"""Of the objects' names: whoever signs decides who shares, and the names need not."""

_MAX_OBJECT_BYTES = MAX_HEADER_BYTES + MAX_PACKED_BYTES
_MAX_BAD = 2
"""Slots of one key that a lookup finds to be of no use before it stops looking: junk costs bounded reads."""

_TOUCH_S = 3600.0
"""An object that is used counts as new at most so often."""

_MAX_TOUCHED = 4096
_MAX_REJECTIONS = 8
_REJECTED = f"{metrics.TIER_REJECTED}."
_MAX_LIST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Found:
    """An artifact of a tier, and the object it came in."""

    artifact: Unpacked
    data: bytes

    @property
    def digest(self) -> Digest:
        """The manifest's."""
        return digest_of(self.artifact.manifest)


@dataclass(frozen=True, kw_only=True, slots=True)
class TierView:
    """A tier as an operator sees it; counts are of this process."""

    address: str
    reads: BreakerView
    writes: BreakerView
    budget_s: float
    """How long a lookup waits for it."""
    counts: dict[str, int]
    """By the names of `metrics.OF_ONE_TIER`."""
    rejected: dict[str, int]
    """Objects that were of no use, by reason."""
    rejections: list[str]
    """What was said of the last of these, the newest last."""
    waiting_bytes: int = 0
    """Of objects that are to be written to it."""


class Tier:
    """Finds artifacts in one tier, and puts them there."""

    def __init__(
        self,
        address: TierAddress,
        engine: Engine,
        *,
        signers: Signers,
        accept: Accept,
        counters: metrics.Counters,
        leases: LeaseConfig | None = None,
    ) -> None:
        self.address = address
        self.breaker = TierBreaker()
        self.budget = ReadBudget()
        self.leases = Leases(engine, leases)
        self._engine = engine
        self._signers = signers
        self._accept = accept
        self._counters = counters
        self._counts: Counter[str] = Counter()
        self._rejections: OrderedDict[str, None] = OrderedDict()
        self._touched: OrderedDict[str, float] = OrderedDict()

    async def find(self, environment: Digest, key: str, tried: Collection[Digest]) -> Found | None:
        """Return the first artifact of the key that was not tried; raise `TierError` where the tier does not answer."""
        bad = 0
        for slot in range(SLOTS):
            name = object_name(NAMESPACE, environment, key, slot)
            data = await self._get(name, _MAX_OBJECT_BYTES)
            if data is None:
                break
            found = await self._verified(data, name, environment, key)
            bad += found is None
            if bad >= _MAX_BAD:
                break
            if found is not None and found.digest not in tried:
                self._count(metrics.TIER_HITS)
                await self._touch(name)
                return found
        self._count(metrics.TIER_MISSES)
        return None

    async def offer(self, data: bytes, environment: Digest, key: str, tried: Collection[Digest]) -> Found | None:
        """Put an artifact's object into the first free slot of its key.

        Returns another one that stands there already, where it is of use and was not tried: it is to be used instead,
        so that all who share the tier run the same code. Raises `TierError` where the tier does not take it.
        """
        if len(data) > self._engine.largest:
            raise TooLargeError(f"an object of {len(data)} bytes is too large for {self.address}")
        for slot in range(SLOTS):
            name = object_name(NAMESPACE, environment, key, slot)
            with self.breaker.writes.asking():
                created = await self._engine.create(name, data)
            if created:
                self._count(metrics.TIER_WRITTEN)
                self._count(metrics.TIER_BYTES_WRITTEN, len(data))
                return None
            there = await self._get(name, _MAX_OBJECT_BYTES)
            if there == data:
                return None
            found = await self._verified(there, name, environment, key) if there is not None else None
            if found is not None and found.digest not in tried:
                return found
        logger.warning("%s has no free slot for key %s: `tier gc` or `tier rm` makes room", self.address, key[:16])
        return None

    async def facts(self, environment: Digest) -> bytes:
        """Return an environment's facts; nothing where the tier has none that can be believed. Raises `TierError`."""
        data = await self._get(facts_name(environment), MAX_HEADER_BYTES + MAX_FACTS_BYTES)
        if data is None:
            return b""
        try:
            found = await asyncio.to_thread(
                unpack_facts, data, environment=environment, trusted=self._signers.current()
            )
        except ObjectError as error:
            self._reject(error, facts_name(environment))
            return b""
        return found.facts

    async def offer_facts(self, data: bytes, environment: Digest, facts: bytes) -> None:
        """Put an environment's facts there, in place of those that say less. Raises `TierError`."""
        name = facts_name(environment)
        with self.breaker.writes.asking():
            created = await self._engine.create(name, data)
        if created:
            return
        known = await self.facts(environment)
        if known and _says_as_much(known, facts):
            return
        with self.breaker.writes.asking():
            await self._engine.replace(name, data)

    async def list_of(self, environment: Digest, program: str) -> bytes:
        """Return the list of what a program asked for last; nothing where there is none. Raises `TierError`."""
        return await self._get(list_name(environment, program), _MAX_LIST_BYTES) or b""

    async def put_list(self, environment: Digest, program: str, data: bytes) -> None:
        """Replace the list of what a program asked for last. Raises `TierError`."""
        with self.breaker.writes.asking():
            await self._engine.replace(list_name(environment, program), data)

    def view(self) -> TierView:
        """Return its state."""
        return TierView(
            address=str(self.address),
            reads=self.breaker.reads.view(),
            writes=self.breaker.writes.view(),
            budget_s=self.budget.seconds(),
            counts={name: self._counts[name] for name in metrics.OF_ONE_TIER},
            rejected={
                name.removeprefix(_REJECTED): number
                for name, number in sorted(self._counts.items())
                if name.startswith(_REJECTED)
            },
            rejections=list(self._rejections),
        )

    async def check(self) -> list[Finding]:
        """Return what is right and wrong with it, in words."""
        return await self._engine.check()

    def count(self, name: str) -> None:
        """Count for this tier and for the daemon."""
        self._count(name)

    async def close(self) -> None:
        """Release what is held, and leave the engine."""
        await self.leases.close()
        await self._engine.close()

    async def _get(self, name: str, limit: int) -> bytes | None:
        reading = self.budget.begin()
        try:
            with self.breaker.reads.asking():
                data = await self._engine.get(name, limit)
        except TooLargeError as error:
            self._reject(error, name)
            return b""  # something is there, and it is no object of ours
        except TierError:
            self._count(metrics.TIER_FAILED)
            raise
        reading.answered()
        self._count(metrics.TIER_BYTES_READ, len(data or b""))
        return data

    async def _verified(self, data: bytes, name: str, environment: Digest, key: str) -> Found | None:
        trusted = self._signers.current()
        try:
            artifact = await asyncio.to_thread(
                unpack, data, key=key, environment=environment, trusted=trusted, accept=self._accept
            )
        except ObjectError as error:
            self._reject(error, name)
            return None
        return Found(artifact, data)

    def _reject(self, error: ObjectError | TooLargeError, name: str) -> None:
        reason = error.reason if isinstance(error, ObjectError) else "too_large"
        self._count(metrics.TIER_REJECTED)
        self._count(f"{_REJECTED}{reason}")
        text = str(error)
        if text not in self._rejections:
            logger.warning("%s: %s is a miss: %s", self.address, name, text)
        self._rejections.pop(text, None)
        self._rejections[text] = None
        while len(self._rejections) > _MAX_REJECTIONS:
            self._rejections.popitem(last=False)

    async def _touch(self, name: str) -> None:
        """Let who cleans by age see that the object is used. It may fail: then it is cleaned sooner."""
        now = time.monotonic()
        if now - self._touched.get(name, -_TOUCH_S) < _TOUCH_S:
            return
        self._touched[name] = now
        self._touched.move_to_end(name)
        if len(self._touched) > _MAX_TOUCHED:
            self._touched.popitem(last=False)
        try:
            with self.breaker.writes.asking():
                await self._engine.touch(name)
        except TierError as error:
            logger.debug("%s: %s could not be touched: %s", self.address, name, error)

    def _count(self, name: str, amount: int = 1) -> None:
        self._counts[name] += amount
        self._counters.add(name, amount)


def _says_as_much(known: bytes, facts: bytes) -> bool:
    """Whether one's facts hold all that the other's do."""
    there, here = decode_facts(known).vec_isa, decode_facts(facts).vec_isa
    return here.keys() <= there.keys()
