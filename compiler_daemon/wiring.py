"""Wiring: builds every part of a daemon and passes each what it needs. Nothing is started here, and nothing decided."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compile_wire.digest import Digest
from compiler_daemon import __version__
from compiler_daemon.access.descriptors import max_connections, raise_limit
from compiler_daemon.access.directory import Identity, forget_digests
from compiler_daemon.access.register import Keyring
from compiler_daemon.compiles.cache import Cache
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.compiles.handshake import Handshakes
from compiler_daemon.compiles.recompile import Recompiler
from compiler_daemon.compiles.rights import Rights
from compiler_daemon.compiles.single_flight import SingleFlight
from compiler_daemon.compiles.transfers import Transfers
from compiler_daemon.compiles.workplaces import Workplaces
from compiler_daemon.config import DaemonConfig
from compiler_daemon.errors import UsageError
from compiler_daemon.insight.explanations import Explanations
from compiler_daemon.insight.inventory import Inventory
from compiler_daemon.insight.run_intake import RunIntake
from compiler_daemon.insight.runs import RunLog
from compiler_daemon.insight.statistics import StatisticsCollector
from compiler_daemon.insight.status import DaemonStatus
from compiler_daemon.metrics import Counters
from compiler_daemon.rpc.admin_service import AdminServicer
from compiler_daemon.rpc.compile_service import CompileServicer
from compiler_daemon.rpc.inventory_service import InventoryServicer
from compiler_daemon.rpc.kernels_service import KernelServicer
from compiler_daemon.rpc.page_service import PageServicer
from compiler_daemon.rpc.replay_service import ReplayServicer
from compiler_daemon.rpc.run_service import RunServicer
from compiler_daemon.rpc.server import RpcServer
from compiler_daemon.rpc.service import Service
from compiler_daemon.store import Store, StoreConfig
from compiler_daemon.workers.pool import Pool

if TYPE_CHECKING:
    from compiler_daemon.compiles.turns import Turns
    from compiler_daemon.farm.farm import Farm
    from compiler_daemon.insight.runs import RunReport
    from compiler_daemon.tier.prefetch import Prefetch
    from compiler_daemon.tier.tiers import Tiers


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """Holds what the services are made of."""

    keyring: Keyring
    counters: Counters
    store: Store
    runs: RunLog
    reading: ThreadPoolExecutor
    intake: RunIntake
    environments: Environments
    pool: Pool
    rights: Rights
    cache: Cache
    transfers: Transfers
    single_flight: SingleFlight
    status: DaemonStatus
    tiers: Tiers | None
    """What is shared with other daemons; None where nothing is."""
    prefetch: Prefetch | None
    farm: Farm | None
    """Who else compiles; None where nobody does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Daemon:
    """Holds a whole daemon, wired and not yet started."""

    config: DaemonConfig
    parts: Parts
    page_service: PageServicer
    server: RpcServer


async def build(config: DaemonConfig, scope: contextlib.AsyncExitStack, *, shutdown: Callable[[], None]) -> Daemon:
    """Open what is kept and wire all parts; `scope` closes what was opened, and `shutdown` is for an operator's call.

    Raises `StartError` or `StoreError` where something cannot be opened.
    """
    parts = await _build_parts(config, scope)
    page_service = PageServicer()
    server = RpcServer(
        _services(config, parts, page_service, shutdown=shutdown),
        keyring=parts.keyring,
        status=parts.status,
        counters=parts.counters,
        with_reflection=config.reflection,
        max_connections=max_connections(raise_limit()),
    )
    return Daemon(config=config, parts=parts, page_service=page_service, server=server)


async def _build_parts(config: DaemonConfig, scope: contextlib.AsyncExitStack) -> Parts:
    identity = Identity.open(config.directory)
    keyring = Keyring(config.directory, token=identity.token)
    counters = Counters()
    store = await asyncio.to_thread(Store.open, _store_config(config))
    scope.push_async_callback(asyncio.to_thread, store.close)
    runs = await asyncio.to_thread(RunLog, config.runs)
    scope.push_async_callback(asyncio.to_thread, runs.close)
    reading = scope.enter_context(_reader())
    tiers = _tiers(config, counters)
    if tiers is not None:
        scope.push_async_callback(tiers.close)
    environments = Environments(
        store, secret=identity.secret, on_facts=tiers.offer_facts if tiers is not None else None
    )
    await environments.load()
    pool = Pool(
        config.pool,
        scratch=config.scratch,
        logs=config.logs,
        headers=config.headers,
        hidden=[config.directory],
        counters=counters,
        on_hello=environments.note_hello,
        facts_of=environments.known_facts,
        on_other_environment=functools.partial(forget_digests, config.directory),
    )
    cache = Cache(store, environments, secret=identity.secret, counters=counters, tiers=tiers)
    prefetch = _prefetch(tiers, cache, scope)
    intake = RunIntake(
        runs, store, reading=reading, counters=counters, on_report=_noting(prefetch) if prefetch is not None else None
    )
    farm = _farm(config)
    single_flight = SingleFlight(
        config.flights,
        cache=cache,
        environments=environments,
        workplaces=Workplaces(pool, farm, counters=counters),
        counters=counters,
        on_refused=intake.keep_refused,
        turns=_turns(tiers, cache, counters),
    )
    return Parts(
        keyring=keyring,
        counters=counters,
        store=store,
        runs=runs,
        reading=reading,
        intake=intake,
        environments=environments,
        pool=pool,
        rights=Rights(environments, allow_publish=config.allow_publish),
        cache=cache,
        transfers=Transfers(store, environments, cache=cache, counters=counters),
        single_flight=single_flight,
        tiers=tiers,
        prefetch=prefetch,
        farm=farm,
        status=DaemonStatus(
            store=store,
            pool=pool,
            single_flight=single_flight,
            counters=counters,
            directory=config.directory,
            tiers=tiers,
        ),
    )


def _services(
    config: DaemonConfig, parts: Parts, page_service: PageServicer, *, shutdown: Callable[[], None]
) -> list[Service]:
    servicers = (
        CompileServicer(
            handshakes=Handshakes(
                parts.environments,
                parts.pool,
                counters=parts.counters,
                facts_elsewhere=parts.tiers.facts_soon if parts.tiers is not None else None,
            ),
            cache=parts.cache,
            transfers=parts.transfers,
            rights=parts.rights,
            single_flight=parts.single_flight,
            interpreter=config.pool.interpreter,
            server_version=__version__,
            on_welcome=parts.prefetch.begin if parts.prefetch is not None else None,
        ),
        AdminServicer(status=parts.status, shutdown=shutdown, server_version=__version__),
        InventoryServicer(
            inventory=Inventory(parts.store, parts.environments, counters=parts.counters), transfers=parts.transfers
        ),
        page_service,
        KernelServicer(
            transfers=parts.transfers,
            rights=parts.rights,
            single_flight=parts.single_flight,
            interpreter=config.pool.interpreter,
        ),
        RunServicer(
            intake=parts.intake,
            explanations=Explanations(parts.runs, parts.store, environments=parts.environments, reading=parts.reading),
            statistics=StatisticsCollector(parts.store, parts.runs, counters=parts.counters),
            single_flight=parts.single_flight,
        ),
        ReplayServicer(
            transfers=parts.transfers,
            recompiler=Recompiler(
                cache=parts.cache,
                environments=parts.environments,
                single_flight=parts.single_flight,
                pool=parts.pool,
                counters=parts.counters,
            ),
            rights=parts.rights,
            interpreter=config.pool.interpreter,
        ),
    )
    return [servicer.service() for servicer in servicers]


def _tiers(config: DaemonConfig, counters: Counters) -> Tiers | None:
    """Open the tiers; nothing of theirs is imported where there are none.

    Raises `UsageError` where an address is none, or a library is missing; a tier that does not answer raises nothing.
    """
    if not config.tier.places:
        return None
    from compiler_daemon.tier.address import tier_at
    from compiler_daemon.tier.engines import check_packing, open_engine
    from compiler_daemon.tier.leases import LeaseConfig
    from compiler_daemon.tier.signer_files import Signers
    from compiler_daemon.tier.tier import Tier
    from compiler_daemon.tier.tiers import Tiers

    check_packing()
    signers = Signers(config.directory)
    leases = LeaseConfig(ttl_s=config.tier.lease_s, beat_s=config.tier.beat_s)
    addresses = [tier_at(place, os.environ) for place in config.tier.places]
    tiers = [
        Tier(
            address,
            open_engine(address),
            signers=signers,
            accept=config.tier.accept,
            counters=counters,
            leases=leases,
        )
        for address in addresses
    ]
    return Tiers(tiers, signers=signers)


def _prefetch(tiers: Tiers | None, cache: Cache, scope: contextlib.AsyncExitStack) -> Prefetch | None:
    if tiers is None:
        return None
    from compiler_daemon.tier.prefetch import Prefetch

    prefetch = Prefetch(tiers, has=cache.has, fetch=cache.fetch)
    scope.push_async_callback(prefetch.close)
    return prefetch


def _noting(prefetch: Prefetch) -> Callable[[RunReport], None]:
    """Return what notes the keys of the graphs in a report."""
    return lambda report: prefetch.note(
        Digest(report.environment), report.program, report.run, [graph.key for graph in report.graphs if graph.key]
    )


def _turns(tiers: Tiers | None, cache: Cache, counters: Counters) -> Turns | None:
    if tiers is None:
        return None
    from compiler_daemon.compiles.turns import Turns

    return Turns(tiers, cache=cache, counters=counters)


def _farm(config: DaemonConfig) -> Farm | None:
    """Return what compiles elsewhere, not yet begun; raise `UsageError` where Dask is missing."""
    if config.farm is None:
        return None
    if importlib.util.find_spec("distributed") is None:  # looked for, and not imported: it is for another process
        raise UsageError("a farm needs Dask's distributed: `pip install 'compiler-daemon[farm]'`")
    from compiler_daemon.farm.farm import Farm

    return Farm(config.farm, config.pool, log=config.logs / "farm.log")


@contextlib.contextmanager
def _reader() -> Iterator[ThreadPoolExecutor]:
    """Keep a thread in which graphs are read, one after the other."""
    thread = ThreadPoolExecutor(1, "reading")
    try:
        yield thread
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def _store_config(config: DaemonConfig) -> StoreConfig:
    return StoreConfig(root=config.store_root, max_bytes=config.store_max_bytes, address=str(config.address))
