"""Serving from start to end: starts what `wiring` has built, waits, drains, and takes all down in the opposite order.

No policy here, and no state that outlives `serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shlex
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

import grpc

from compile_wire.endpoint.address import Address, TcpAddress, UnixAddress
from compiler_daemon import __version__
from compiler_daemon.access.descriptors import keep_silent_out, let_silent_go
from compiler_daemon.access.directory import DaemonNote, DirectoryLock, prepare_directory
from compiler_daemon.access.socket import clear_socket
from compiler_daemon.access.users import Users
from compiler_daemon.compiles.single_flight import SingleFlight
from compiler_daemon.config import DIRECTORY_VARIABLE, DaemonConfig, DaemonLocation
from compiler_daemon.errors import AddressError, StartError
from compiler_daemon.place import keep_place
from compiler_daemon.rpc.server import RpcServer
from compiler_daemon.rpc.tls import server_credentials
from compiler_daemon.rpc.use import until_idle
from compiler_daemon.text import numbers
from compiler_daemon.wiring import Daemon, Parts, build
from compiler_daemon.worker import confinement

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
    logger.info("compile daemon %s starts", __version__)
    stop, stop_now = asyncio.Event(), asyncio.Event()
    async with contextlib.AsyncExitStack() as scope:
        scope.enter_context(_signals(stop, stop_now))
        lock = await _take_place(config, scope)
        credentials = server_credentials(config)
        daemon = await build(config, scope, shutdown=stop.set)
        await run(daemon, lock, credentials, stop=stop, stop_now=stop_now, on_ready=on_ready)
    logger.info("stopped")


async def run(
    daemon: Daemon,
    lock: DirectoryLock,
    credentials: grpc.ServerCredentials | None,
    *,
    stop: asyncio.Event,
    stop_now: asyncio.Event,
    on_ready: Callable[[str], None],
) -> None:
    """Start the parts of a daemon, serve until `stop` is set, and drain, or leave that once `stop_now` is set, too.

    Whatever it ends by, all that was started has ended.
    """
    config, parts = daemon.config, daemon.parts

    def lose() -> None:
        # What is compiled has nowhere to go: nothing is waited for.
        stop.set()
        stop_now.set()

    async with contextlib.AsyncExitStack() as scope:
        await _start(parts, scope)
        scope.push_async_callback(daemon.server.stop, 0)
        address, local = await _open(daemon.server, config, credentials, scope)
        scope.callback(_leave, local, config.directory, lock)
        parts.status.address = str(address)
        DaemonNote(address=str(local), pid=os.getpid(), started=time.time()).write(config.directory)
        if config.page_port is not None:
            await scope.enter_async_context(_page(daemon, config.page_port, optional=config.page_optional))
        if config.idle_s is not None:
            users = scope.enter_context(Users(config.directory))
            await scope.enter_async_context(_running(_end_idle(daemon, users, config.idle_s, stop)))
        logger.info("process %d serves %s at %s", os.getpid(), config.directory, address)
        logger.info("a trainer uses it with: %s", _trainers_line(config))
        async with _running(keep_place(config.directory, lock, daemon.server, local, lost=lose)):
            on_ready(str(address))
            await stop.wait()
        logger.info("draining")
        parts.status.draining = True
        await daemon.server.say_not_serving()
        await _unless(stop_now, _drain(parts.single_flight, config.drain_s))
        await _unless(stop_now, daemon.server.stop(_LAST_ANSWERS_S))


def check_sandbox(config: DaemonConfig) -> None:
    """Say at the start where workers are not confined; raise `StartError` where they must be and cannot."""
    if config.pool.sandbox == "off":
        logger.warning("workers are not confined: whoever's graph takes one over has all that this account has")
    elif reason := confinement.why_not():
        if config.pool.sandbox == "required":
            raise StartError(f"workers cannot be confined: {reason}. Leave --require-sandbox out to serve all the same")
        logger.warning("workers are not confined: %s", reason)


async def _take_place(config: DaemonConfig, scope: contextlib.AsyncExitStack) -> DirectoryLock:
    """Make the directory ours until the scope ends, and clear away what an earlier daemon left in it."""
    check_sandbox(config)
    prepare_directory(config.directory)
    lock = scope.enter_context(_lock(config.directory))
    if isinstance(config.local_address, UnixAddress):
        clear_socket(config.local_address)
    await asyncio.to_thread(shutil.rmtree, config.scratch, ignore_errors=True)
    return lock


async def _start(parts: Parts, scope: contextlib.AsyncExitStack) -> None:
    """Start what works in the background until the scope ends, and end it then, the compiles first."""
    scope.push_async_callback(parts.status.sample)
    scope.push_async_callback(parts.status.save)
    scope.push_async_callback(parts.pool.close)
    scope.push_async_callback(parts.single_flight.drain, 0)
    await scope.enter_async_context(_running(parts.pool.run()))
    await scope.enter_async_context(_running(parts.status.run(every_s=_SAVE_COUNTS_S)))
    await scope.enter_async_context(_running(parts.cache.run(every_s=_TIDY_S)))
    parts.pool.prewarm_first()
    if parts.farm is not None:
        await scope.enter_async_context(_running(parts.farm.run()))
    if parts.tiers is not None:
        await scope.enter_async_context(_running(parts.tiers.run()))
        await scope.enter_async_context(_running(parts.tiers.say_what_is_wrong()))


async def _open(
    server: RpcServer,
    config: DaemonConfig,
    credentials: grpc.ServerCredentials | None,
    scope: contextlib.AsyncExitStack,
) -> tuple[Address, Address]:
    """Begin to answer until the scope ends; return the daemon's address, and the one of the directory's own user."""
    address = server.bind(config.address, credentials)
    local = server.bind(config.local_address) if config.uses_tls else address
    if isinstance(address, TcpAddress):
        keep_silent_out(address.port)  # the socket listens by now, and takes nobody yet
    await server.start()
    if isinstance(address, TcpAddress):
        await scope.enter_async_context(_running(let_silent_go(address.port, most=server.max_connections)))
    return address, local


def _trainers_line(config: DaemonConfig) -> str:
    """Return what a user of this machine types; a directory that is found without a variable needs none."""
    usual = DaemonLocation.resolve({**os.environ, DIRECTORY_VARIABLE: ""}, directory=None, address=None).directory
    named = "" if config.directory == usual else f"{DIRECTORY_VARIABLE}={shlex.quote(str(config.directory))} "
    return f"{named}TORCH_COMPILE_CLIENT=1 python train.py"


async def _end_idle(daemon: Daemon, users: Users, idle_s: float, stop: asyncio.Event) -> None:
    """Have the daemon end once nobody uses it, and nothing is compiled, for so long."""
    await until_idle(idle_s, daemon.server.use, lambda: users.are_there() or bool(daemon.parts.single_flight.views()))
    logger.info("nobody has used this daemon for %s: it ends", numbers.seconds(idle_s))
    stop.set()


async def _drain(single_flight: SingleFlight, limit_s: float) -> None:
    if await single_flight.drain(limit_s):
        await asyncio.sleep(_LAST_READS_S)


@contextlib.asynccontextmanager
async def _page(daemon: Daemon, port: int, *, optional: bool) -> AsyncIterator[None]:
    """Serve the page while the block lasts. Raises `AddressError` where the port cannot be used, unless optional."""
    # Here, and not above: a daemon without a page pays for none of it.
    from compiler_daemon.http.login import Access
    from compiler_daemon.http.routes import Routes
    from compiler_daemon.http.server import HOST, HttpServer, HttpServerConfig

    parts = daemon.parts
    access = Access(parts.keyring.is_operators)
    routes = Routes(
        daemon_status=parts.status,
        single_flight=parts.single_flight,
        store=parts.store,
        runs=parts.runs,
        access=access,
        counters=parts.counters,
        version=__version__,
    )
    server = HttpServer(routes.answer, routes.plain, HttpServerConfig())
    try:
        access.port = await server.listen(port)
    except AddressError as error:
        if not optional:
            raise
        logger.warning("no page is served: %s", error)
        yield
        return
    url = f"http://{HOST}:{access.port}/"
    daemon.page_service.serve(url, access.make_code)
    logger.info("the page is at %s; `compiler-daemon page` lets a browser in", url)
    try:
        yield
    finally:
        await server.close()


def _leave(address: Address, directory: Path, lock: DirectoryLock) -> None:
    """Take away what says that a daemon is here, unless the place is no longer ours: then it may be another's."""
    if lock.is_in_place():
        DaemonNote.remove(directory)
        if isinstance(address, UnixAddress):
            address.path.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[DirectoryLock]:
    lock = DirectoryLock(directory)
    lock.acquire()
    try:
        yield lock
    finally:
        lock.release()


@contextlib.contextmanager
def _signals(stop: asyncio.Event, stop_now: asyncio.Event) -> Iterator[None]:
    """The first signal sets `stop`, every later one `stop_now`; a terminal that closes sets `stop`, however often."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (stop_now if stop.is_set() else stop).set()

    handlers: dict[signal.Signals, Callable[[], object]] = dict.fromkeys((signal.SIGTERM, signal.SIGINT), on_signal)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as `nohup` has it
        handlers[signal.SIGHUP] = stop.set
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    # What `become_daemon` has held back.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, handlers)
    try:
        yield
    finally:
        for number in handlers:
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
