"""The environments that handshakes have named, and what is known about each.

They are kept in the store, so that a client need not handshake again when the daemon was restarted under it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from compile_wire.digest import Digest
from compile_wire.environment import check_environment, environment_id
from compile_wire.signature import sign_facts
from compiler_daemon.errors import EnvironmentUnknownError
from compiler_daemon.jobs import Hello
from compiler_daemon.store import Store, StoreError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedFacts:
    """What a worker has found out about an environment; both empty where none has yet."""

    facts: bytes
    signature: bytes


class Environments:
    """Environments by their id."""

    def __init__(self, store: Store, *, secret: bytes) -> None:
        self._store = store
        self._secret = secret
        self._fields: dict[Digest, Mapping[str, str]] = {}

    async def load(self) -> None:
        """Learn what earlier runs knew."""
        known = await asyncio.to_thread(self._store.environments)
        self._fields.update(known)

    async def register(self, fields: Mapping[str, str]) -> Digest:
        """Remember an environment and return its id; raise `MalformedError` where it breaks a bound."""
        check_environment(fields)
        environment = environment_id(fields)
        if environment not in self._fields:
            await asyncio.to_thread(self._store.put_environment, dict(fields))
            self._fields[environment] = dict(fields)
        return environment

    def fields(self, environment: Digest) -> Mapping[str, str]:
        """Return an environment's fields; raise `EnvironmentUnknownError` where no handshake has named it."""
        try:
            return self._fields[environment]
        except KeyError:
            raise EnvironmentUnknownError(environment) from None

    async def facts(self, environment: Digest) -> SignedFacts:
        """Return what is known about an environment."""
        facts = await asyncio.to_thread(self._store.get_facts, environment)
        signature = sign_facts(self._secret, environment=environment, facts=facts) if facts else b""
        return SignedFacts(facts=facts, signature=signature)

    async def note_facts(self, environment: Digest, facts: bytes) -> None:
        """Keep what a worker of the environment has found out."""
        if facts:
            await asyncio.to_thread(self._store.put_facts, environment, facts)

    async def note_hello(self, hello: Hello) -> None:
        """Keep what a worker says when it comes up. A store that cannot take it costs speed only."""
        try:
            await self.register(hello.fields)
            await self.note_facts(hello.environment, hello.facts)
        except StoreError as error:
            logger.warning("the facts of environment %s are not kept: %s", hello.environment[:12], error)
