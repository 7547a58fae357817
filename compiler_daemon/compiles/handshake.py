"""The handshake: a client's protocol version and environment are checked, and the facts it may take over are given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from compile_wire.digest import Digest
from compile_wire.limits import PROTOCOL_VERSION
from compiler_daemon import metrics
from compiler_daemon.compiles.environments import Environments, SignedFacts
from compiler_daemon.workers.pool import Pool


@dataclass(frozen=True, kw_only=True, slots=True)
class Welcome:
    """Says that the handshake was accepted."""

    environment: Digest
    facts: SignedFacts


class Handshakes:
    """Answers handshakes: compares the protocol's version, and registers the client's environment."""

    def __init__(
        self,
        environments: Environments,
        pool: Pool,
        *,
        counters: metrics.Counters,
        facts_elsewhere: Callable[[Digest], Awaitable[bytes]] | None = None,
    ) -> None:
        """`facts_elsewhere` is asked for the facts of an environment of which nothing is known here yet."""
        self._facts_elsewhere = facts_elsewhere
        self._known_elsewhere: set[Digest] = set()
        self._environments = environments
        self._pool = pool
        self._counters = counters

    async def accept(
        self, version: int, fields: Mapping[str, str], interpreter: str | None, *, caller: str = ""
    ) -> Welcome | str:
        """Return a welcome, or in words why the client is not welcome; raise `MalformedError` for a bad environment.

        A worker for the client is started meanwhile, so that its first graph does not wait for `import torch`; none
        where its interpreter is None.
        """
        self._counters.add(metrics.HANDSHAKES)
        if version != PROTOCOL_VERSION:
            self._counters.add(metrics.HANDSHAKES_REFUSED)
            older = "client" if version < PROTOCOL_VERSION else "daemon"
            return (
                f"the client speaks protocol {version} and the daemon {PROTOCOL_VERSION}: "
                f"upgrade the {older} to the version of the other"
            )
        environment = self._environments.register(fields, caller=caller)
        # Before a worker is started: it need not find out for itself what is known. Where another daemon knows, it has
        # compiled for this environment, too: a worker is started for the first graph that no tier has, and not before.
        if self._facts_elsewhere is not None and not await self._environments.known_facts(environment):
            facts = await self._facts_elsewhere(environment)
            if facts:
                self._known_elsewhere.add(environment)
                await self._environments.keep(environment)  # a daemon that is trusted has workers of it
                await self._environments.note_facts(environment, facts)
        if interpreter is not None and environment not in self._known_elsewhere:
            self._pool.prewarm(environment, fields, interpreter)
        return Welcome(environment=environment, facts=await self._environments.facts(environment))
