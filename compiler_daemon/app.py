"""Wiring: builds every room, passes each what it needs, and takes all of it down again in the opposite order.

No policy here, and no state that outlives `serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from compile_wire.endpoint.address import Address, TcpAddress, UnixAddress
from compiler_daemon import __version__
from compiler_daemon.access.descriptors import let_silent_go, max_connections, raise_limit
from compiler_daemon.access.directory import DaemonNote, DirectoryLock, Identity, prepare_directory
from compiler_daemon.access.register import Keyring
from compiler_daemon.access.socket import clear_socket
from compiler_daemon.compiles.cache import Cache
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.compiles.handshake import Handshakes
from compiler_daemon.compiles.recompile import Replays
from compiler_daemon.compiles.rights import Rights
from compiler_daemon.compiles.single_flight import Flights
from compiler_daemon.config import DaemonConfig
from compiler_daemon.errors import StartError
from compiler_daemon.insight.explanations import Explanations
from compiler_daemon.insight.inventory import Inventory
from compiler_daemon.insight.run_intake import Reports
from compiler_daemon.insight.runs import RunLog
from compiler_daemon.insight.statistics import Gathering
from compiler_daemon.insight.status import Condition
from compiler_daemon.metrics import Counters
from compiler_daemon.rpc.admin_service import AdminServicer
from compiler_daemon.rpc.compile_service import CompileServicer
from compiler_daemon.rpc.inventory_service import InventoryServicer
from compiler_daemon.rpc.kernels_service import KernelServicer
from compiler_daemon.rpc.page_service import PageServicer
from compiler_daemon.rpc.replay_service import ReplayServicer
from compiler_daemon.rpc.run_service import RunServicer
from compiler_daemon.rpc.server import RpcServer
from compiler_daemon.rpc.tls import server_credentials
from compiler_daemon.store import Store, StoreConfig
from compiler_daemon.worker import confinement
from compiler_daemon.workers.pool import Pool

logger = logging.getLogger(__name__)

_SAVE_COUNTS_S = 1.0
_TIDY_S = 600.0
_LAST_READS_S = 2.0
"""After the drain: for clients that were just given an artifact to begin reading its blobs."""
_LAST_ANSWERS_S = 5.0
"""For calls under way to end by themselves; without any, nothing is waited for."""


async def serve(config: DaemonConfig, *, on_ready: Callable[[str], None]) -> None:
    """Serve until a signal or a Shutdown call ends it, gracefully; a second signal ends it at once.

    `on_ready` is called once, with the address, when calls are answered. Raises `StartError` or `StoreError` where the
    daemon cannot start; what was begun by then has been undone.
    """
    os.umask(0o077)
    stop, stop_now = asyncio.Event(), asyncio.Event()
    async with contextlib.AsyncExitStack() as scope:
        await _take_place(config, scope)
        credentials = server_credentials(config)
        scope.enter_context(_signals(stop, stop_now))

        identity = Identity.open(config.directory)
        keyring = Keyring(config.directory, token=identity.token)
        counters = Counters()
        store = await asyncio.to_thread(Store.open, _store_config(config))
        scope.push_async_callback(asyncio.to_thread, store.close)
        runs = await asyncio.to_thread(RunLog, config.runs)
        scope.push_async_callback(asyncio.to_thread, runs.close)
        reading = scope.enter_context(_reader())
        reports = Reports(runs, store, reading=reading, counters=counters)
        environments = Environments(store, secret=identity.secret)
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
        )
        rights = Rights(environments, allow_publish=config.allow_publish)
        cache = Cache(store, environments, secret=identity.secret, counters=counters)
        flights = Flights(
            config.flights,
            cache=cache,
            environments=environments,
            pool=pool,
            counters=counters,
            on_refused=reports.keep_refused,
        )
        condition = Condition(store=store, pool=pool, flights=flights, counters=counters, directory=config.directory)
        scope.push_async_callback(condition.sample)
        scope.push_async_callback(condition.save)
        scope.push_async_callback(pool.close)
        scope.push_async_callback(flights.drain, 0)
        await scope.enter_async_context(_running(pool.run()))
        await scope.enter_async_context(_running(condition.run(every_s=_SAVE_COUNTS_S)))
        await scope.enter_async_context(_running(cache.run(every_s=_TIDY_S)))

        page_service = PageServicer()
        server = RpcServer(
            CompileServicer(
                handshakes=Handshakes(environments, pool, counters=counters),
                cache=cache,
                rights=rights,
                flights=flights,
                interpreter=config.pool.interpreter,
                server_version=__version__,
            ),
            AdminServicer(condition=condition, shutdown=stop.set, server_version=__version__),
            InventoryServicer(inventory=Inventory(store, environments, counters=counters), cache=cache),
            page_service,
            KernelServicer(cache=cache, rights=rights, flights=flights, interpreter=config.pool.interpreter),
            RunServicer(
                reports=reports,
                explanations=Explanations(runs, store, environments=environments, reading=reading),
                gathering=Gathering(store, runs, counters=counters),
                flights=flights,
            ),
            ReplayServicer(
                cache=cache,
                replays=Replays(cache=cache, environments=environments, flights=flights, pool=pool, counters=counters),
                rights=rights,
                interpreter=config.pool.interpreter,
            ),
            keyring=keyring,
            condition=condition,
            counters=counters,
            with_reflection=config.reflection,
            max_connections=max_connections(raise_limit()),
        )
        scope.push_async_callback(server.stop, 0)
        address, local = await _open(server, config, credentials, scope)
        condition.address = str(address)
        DaemonNote(address=str(local), pid=os.getpid(), started=time.time()).write(config.directory)
        scope.callback(DaemonNote.remove, config.directory)
        if config.page_port is not None:
            await scope.enter_async_context(
                _page(
                    config.page_port,
                    page_service,
                    keyring=keyring,
                    condition=condition,
                    flights=flights,
                    store=store,
                    runs=runs,
                    counters=counters,
                )
            )
        logger.info("process %d serves %s at %s", os.getpid(), config.directory, address)
        on_ready(str(address))

        await stop.wait()
        logger.info("draining")
        condition.draining = True
        await server.say_not_serving()
        await _unless(stop_now, _drain(flights, config.drain_s))
        await _unless(stop_now, server.stop(_LAST_ANSWERS_S))
    logger.info("stopped")


def check_sandbox(config: DaemonConfig) -> None:
    """Say at the start where workers are not confined; raise `StartError` where they must be and cannot."""
    if config.pool.sandbox == "off":
        logger.warning("workers are not confined: whoever's graph takes one over has all that this account has")
    elif reason := confinement.why_not():
        if config.pool.sandbox == "required":
            raise StartError(f"workers cannot be confined: {reason}. Leave --require-sandbox out to serve all the same")
        logger.warning("workers are not confined: %s", reason)


@contextlib.contextmanager
def _reader() -> Iterator[ThreadPoolExecutor]:
    """A thread in which graphs are read, one after the other."""
    thread = ThreadPoolExecutor(1, "reading")
    try:
        yield thread
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


async def _take_place(config: DaemonConfig, scope: contextlib.AsyncExitStack) -> None:
    """Make the directory ours until the scope ends, and clear away what an earlier daemon left in it."""
    check_sandbox(config)
    prepare_directory(config.directory)
    scope.enter_context(_lock(config.directory))
    if isinstance(config.local_address, UnixAddress):
        clear_socket(config.local_address)
    await asyncio.to_thread(shutil.rmtree, config.scratch, ignore_errors=True)


async def _open(
    server: RpcServer,
    config: DaemonConfig,
    credentials: grpc.ServerCredentials | None,
    scope: contextlib.AsyncExitStack,
) -> tuple[Address, Address]:
    """Begin to answer until the scope ends; return the daemon's address, and the one of the directory's own user."""
    address = server.bind(config.address, credentials)
    local = server.bind(config.local_address) if config.uses_tls else address
    await server.start()
    if isinstance(address, TcpAddress):
        await scope.enter_async_context(_running(let_silent_go(address.port, most=server.max_connections)))
    scope.callback(_unlink, local)
    return address, local


async def _drain(flights: Flights, limit_s: float) -> None:
    if await flights.drain(limit_s):
        await asyncio.sleep(_LAST_READS_S)


@contextlib.asynccontextmanager
async def _page(
    port: int,
    service: PageServicer,
    *,
    keyring: Keyring,
    condition: Condition,
    flights: Flights,
    store: Store,
    runs: RunLog,
    counters: Counters,
) -> AsyncIterator[None]:
    # Here, and not above: a daemon without a page pays for none of it.
    from compiler_daemon.http.login import Access
    from compiler_daemon.http.routes import Site
    from compiler_daemon.http.server import HOST, Door, DoorConfig

    access = Access(keyring.is_operators)
    site = Site(
        condition=condition,
        flights=flights,
        store=store,
        runs=runs,
        access=access,
        counters=counters,
        version=__version__,
    )
    door = Door(site.answer, site.plain, DoorConfig())
    access.port = await door.listen(port)
    url = f"http://{HOST}:{access.port}/"
    service.serve(url, access.make_code)
    logger.info("the page is at %s; `compiler-daemon page` lets a browser in", url)
    try:
        yield
    finally:
        await door.close()


def _store_config(config: DaemonConfig) -> StoreConfig:
    return StoreConfig(root=config.store_root, max_bytes=config.store_max_bytes, address=str(config.address))


def _unlink(address: Address) -> None:
    if isinstance(address, UnixAddress):
        address.path.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    lock = DirectoryLock(directory)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _signals(stop: asyncio.Event, stop_now: asyncio.Event) -> Iterator[None]:
    """The first signal sets `stop`, every later one `stop_now`."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (stop_now if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _running(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Work in the background while the block lasts."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        for result in await asyncio.gather(task, return_exceptions=True):
            if isinstance(result, Exception):
                logger.error("background work ended early", exc_info=result)


async def _unless(event: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Do the work, or leave it where it is once the event is set."""
    task, waiter = asyncio.create_task(work), asyncio.create_task(event.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    for pending in (task, waiter):
        pending.cancel()
    await asyncio.gather(task, waiter, return_exceptions=True)
