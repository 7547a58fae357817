"""Of all who ask a tier for an artifact at once one fetches it, and the others find what it has stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from compile_wire.digest import Digest
from compile_wire.manifest import manifest_digest
from compiler_daemon.compiles.cache import Cache
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.jobs import Entry
from compiler_daemon.metrics import TIER_HITS, Counters
from compiler_daemon.store import Store, StoreConfig
from compiler_daemon.tier.address import object_name, tier_at
from compiler_daemon.tier.engines import open_engine
from compiler_daemon.tier.packed import pack
from compiler_daemon.tier.signer_files import SignerFiles, Signers
from compiler_daemon.tier.signers import Listed
from compiler_daemon.tier.tier import NAMESPACE, Found, Tier
from compiler_daemon.tier.tiers import Tiers
from tests.daemon.daemon_process import FIELDS
from tests.daemon.tier.tier_samples import HOST, LAB, artifact


class StoresWhenTold(Cache):
    """A cache that has found something in a tier, and stores it only when it is told to."""

    found: asyncio.Event
    told: asyncio.Event

    async def take_in(self, found: Found) -> Entry:
        self.found.set()
        await self.told.wait()
        return await super().take_in(found)


@asynccontextmanager
async def _node(folder: Path) -> AsyncIterator[tuple[StoresWhenTold, Counters, Digest, Digest]]:
    """Yield a cache whose tier has an artifact, the environment's name and the artifact's digest."""
    place = folder / "tier"
    place.mkdir(mode=0o700)
    directory = folder / "d"
    counters = Counters()
    store = Store.open(StoreConfig(root=directory))
    files = SignerFiles(directory)
    files.prepare()
    files.write_own(LAB)
    files.write_listed((Listed(signer=LAB.signer, since=0.0),))
    address = tier_at(f"file://{place}", {})
    engine = open_engine(address)
    signers = Signers(directory)
    tiers = Tiers([Tier(address, engine, signers=signers, accept="any", counters=counters)], signers=signers)
    environments = Environments(store, secret=b"s" * 32)
    environment = environments.register(FIELDS)
    cache = StoresWhenTold(store, environments, secret=b"s" * 32, counters=counters, tiers=tiers)
    cache.found, cache.told = asyncio.Event(), asyncio.Event()
    made = artifact(environment=environment)
    packed = pack(made.manifest, made.blobs, graph=made.graph, facts="", signer=LAB, host=HOST)
    try:
        await engine.create(object_name(NAMESPACE, environment, "k" * 53, 0), packed)
        yield cache, counters, environment, manifest_digest(made.manifest)
    finally:
        await tiers.close()
        store.close()


@pytest.mark.asyncio
async def test_a_lookup_while_what_was_found_is_being_stored_does_not_ask_the_tier_again(tmp_path: Path) -> None:
    async with _node(tmp_path) as (cache, counters, environment, digest):
        ahead = asyncio.create_task(cache.fetch(environment, "k" * 53))
        await cache.found.wait()

        lookup = asyncio.create_task(cache.lookup(environment, "k" * 53, ()))
        await asyncio.sleep(0)
        cache.told.set()

        assert [entry.digest for entry in await lookup] == [digest]
        assert (await ahead) is not None
        assert counters.pending()[TIER_HITS] == 1


@pytest.mark.asyncio
async def test_a_fetch_that_begins_when_another_has_stored_the_artifact_does_not_ask_the_tier(tmp_path: Path) -> None:
    async with _node(tmp_path) as (cache, counters, environment, digest):
        cache.told.set()
        await cache.fetch(environment, "k" * 53)

        again = await cache.fetch(environment, "k" * 53)

        assert again is not None
        assert again.digest == digest
        assert counters.pending()[TIER_HITS] == 1


@pytest.mark.asyncio
async def test_what_was_disputed_is_not_fetched_ahead_either(tmp_path: Path) -> None:
    async with _node(tmp_path) as (cache, counters, environment, digest):
        cache.told.set()
        cache.dispute(digest)

        assert await cache.fetch(environment, "k" * 53) is None
        assert counters.pending()[TIER_HITS] == 0
