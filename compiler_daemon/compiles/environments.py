"""The environments that handshakes have named, and what is known about each.

Those that a worker has, or that something stored is for, are kept in the store, so that their clients need not shake
hands again when the daemon was restarted under them. A name alone stays in memory, and a caller has a few of those.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from compile_wire.digest import Digest
from compile_wire.environment import check_environment, environment_id
from compile_wire.signature import sign_facts
from compiler_daemon.errors import EnvironmentUnknownError
from compiler_daemon.jobs import WorkerHello
from compiler_daemon.store import Store, StoreError

logger = logging.getLogger(__name__)

_MAX_ENVIRONMENTS = 256
"""Kept in memory, at 16 KiB or less each."""

_MAX_UNKEPT = 8
"""Of one caller, in memory: a machine with several virtual environments names a few."""

_MAX_NAMED = 4096
"""Ids of environments; a few, unless somebody makes them up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedFacts:
    """What a worker has found out about an environment; both empty where none has yet."""

    facts: bytes
    signature: bytes


class Environments:
    """Remembers environments by their id.

    The ones not heard of for longest are forgotten first, and must be named again.
    """

    def __init__(self, store: Store, *, secret: bytes, on_facts: Callable[[Digest, bytes], None] | None = None) -> None:
        """`on_facts` is told of what is newly known about an environment; it must not raise."""
        self._on_facts = on_facts
        self._store = store
        self._secret = secret
        self._fields: OrderedDict[Digest, Mapping[str, str]] = OrderedDict()
        self._named: set[Digest] = set()
        """By a client or a worker, since the start."""
        self._kept: set[Digest] = set()
        """In the store."""
        self._unkept: dict[str, OrderedDict[Digest, None]] = {}
        """By caller, those that nothing is stored for and no worker has."""

    async def load(self) -> None:
        """Learn what earlier runs knew."""
        for environment, fields in (await asyncio.to_thread(self._store.environments)).items():
            self._kept.add(environment)
            self._remember(environment, fields)

    def register(self, fields: Mapping[str, str], *, caller: str = "") -> Digest:
        """Remember the environment of a caller's process; return its id.

        Raises `MalformedError` where it breaks a bound.
        """
        check_environment(fields)
        environment = environment_id(fields)
        self._remember(environment, dict(fields))
        if environment not in self._kept:
            self._note_unkept(environment, caller)
        if len(self._named) > _MAX_NAMED:
            self._named.clear()
        self._named.add(environment)
        return environment

    async def learn(self, fields: Mapping[str, str]) -> Digest:
        """Remember an environment that something stored is for, though no process here may ever have it."""
        check_environment(fields)
        environment = environment_id(fields)
        self._remember(environment, dict(fields))
        await self.keep(environment)
        return environment

    async def keep(self, environment: Digest) -> None:
        """Keep an environment for longer than the daemon lives, as it is needed from now on."""
        if environment in self._kept:
            return
        try:
            await asyncio.to_thread(self._store.put_environment, dict(self.fields(environment)))
        except StoreError as error:
            # What is stored can still be looked up; only a restart forgets the environment.
            logger.warning("environment %s is not kept: %s", environment[:12], error)
            return
        self._kept.add(environment)
        for names in self._unkept.values():
            names.pop(environment, None)

    def fields(self, environment: Digest) -> Mapping[str, str]:
        """Return an environment's fields; raise `EnvironmentUnknownError` where no handshake has named it."""
        try:
            self._fields.move_to_end(environment)
        except KeyError:
            raise EnvironmentUnknownError(environment) from None
        return self._fields[environment]

    def known(self) -> dict[Digest, Mapping[str, str]]:
        """Return every environment that is remembered, those that are not kept among them."""
        return dict(self._fields)

    async def is_served(self, environment: Digest) -> bool:
        """Return whether a client since the start, or a worker ever, has had this environment."""
        return environment in self._named or bool(await asyncio.to_thread(self._store.get_facts, environment))

    async def facts(self, environment: Digest) -> SignedFacts:
        """Return what is known about an environment."""
        facts = await self.known_facts(environment)
        signature = sign_facts(self._secret, environment=environment, facts=facts) if facts else b""
        return SignedFacts(facts=facts, signature=signature)

    async def known_facts(self, environment: Digest) -> bytes:
        """Return what is known about an environment, for a worker of ours; nothing where none has told."""
        return await asyncio.to_thread(self._store.get_facts, environment)

    async def note_facts(self, environment: Digest, facts: bytes) -> None:
        """Keep what a worker of the environment has found out. A store that cannot take it costs speed only."""
        if facts:
            try:
                # Nearly always known already, and a write waits for the disk.
                if await asyncio.to_thread(self._store.get_facts, environment) != facts:
                    await asyncio.to_thread(self._store.put_facts, environment, facts)
                    if self._on_facts is not None:
                        self._on_facts(environment, facts)
            except StoreError as error:
                logger.warning("the facts of environment %s are not kept: %s", environment[:12], error)

    async def note_hello(self, hello: WorkerHello) -> None:
        """Keep what a worker says when it comes up."""
        self._named.add(await self.learn(hello.fields))
        await self.note_facts(hello.environment, hello.facts)

    def _note_unkept(self, environment: Digest, caller: str) -> None:
        names = self._unkept.setdefault(caller, OrderedDict())
        names[environment] = None
        names.move_to_end(environment)
        while len(names) > _MAX_UNKEPT:
            oldest, _ = names.popitem(last=False)
            if not any(oldest in others for others in self._unkept.values()):
                self._fields.pop(oldest, None)
                self._named.discard(oldest)

    def _remember(self, environment: Digest, fields: Mapping[str, str]) -> None:
        self._fields[environment] = fields
        self._fields.move_to_end(environment)
        while len(self._fields) > _MAX_ENVIRONMENTS:
            forgotten, _ = self._fields.popitem(last=False)
            self._kept.discard(forgotten)  # the next who names it has it kept again, which costs nothing
