"""A bounded number of warm workers, and who may use which.

Guarantees: a job for an environment is only ever given to a worker that has stated this environment. Requests are
served in the order they came, those that somebody waits for first, except that a later one may take a worker that no
earlier one can use. An interpreter that cannot serve an environment is found out once, not once a request. After
`close` no process is left.

All of it runs on one event loop; there are no locks. Every change (a request, a worker ready, idle or gone) ends in one
pass over the waiting requests, `_dispatch`, which holds the whole policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compile_wire.digest import Digest
from compile_wire.environment import differing_fields
from compiler_daemon import metrics
from compiler_daemon.config import PoolConfig
from compiler_daemon.errors import DrainingError, JobRefusedError, WorkerLostError
from compiler_daemon.jobs import WorkerHello, WorkerView, worker_kind
from compiler_daemon.worker import confinement
from compiler_daemon.worker.confinement import Order
from compiler_daemon.workers.differences import other_environment
from compiler_daemon.workers.headers import HeaderMaker
from compiler_daemon.workers.process import WorkerProcess, WorkerSlot
from compiler_daemon.workers.requests import Request, Requests, Start

logger = logging.getLogger(__name__)

_END_GRACE_S = 2.0
_CARE_S = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """Remembers what starting a worker of an interpreter has shown: its environment, or why it did not come up."""

    hello: WorkerHello | None
    failure: str
    until: float


class Pool:
    """Starts workers when they are needed, keeps them warm, and gives each at most one job."""

    def __init__(
        self,
        config: PoolConfig,
        *,
        scratch: Path,
        logs: Path,
        headers: Path,
        hidden: Sequence[Path] = (),
        counters: metrics.Counters,
        on_hello: Callable[[WorkerHello], Awaitable[None]],
        facts_of: Callable[[Digest], Awaitable[bytes]],
        on_other_environment: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_hello` hears every worker that came up; `facts_of` tells what is known of an environment, or nothing.

        `on_other_environment` hears that a client and a worker of one interpreter say different environments.
        Of what is `hidden`, workers must see their own scratch alone.
        """
        self._config = config
        self._scratch = scratch
        self._headers = headers
        self._hidden = tuple(hidden)
        self._logs = logs
        self._counters = counters
        self._on_hello = on_hello
        self._facts_of = facts_of
        self._on_other_environment = on_other_environment
        self._starting: list[WorkerProcess] = []
        self._idle: list[WorkerProcess] = []
        self._busy: list[WorkerProcess] = []
        self._ending: list[WorkerProcess] = []
        self._header_maker = HeaderMaker(config, headers)
        self._requests = Requests()
        self._known: dict[Start, _Known] = {}
        self._failures: Counter[Start] = Counter()
        self._numbers = itertools.count(1)
        self._said_unconfined: set[Start] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._none_busy = asyncio.Event()
        self._none_busy.set()

    @property
    def queued(self) -> int:
        """The number of requests that wait."""
        return len(self._requests)

    def sandbox(self) -> str:
        """Say whether workers are confined: as the machine promises, or as the workers that live have said."""
        if self._config.sandbox == "off":
            return "off: the daemon was told so"
        if reason := confinement.why_not():
            return f"not in force: {reason}"
        said = {worker.hello.unconfined for worker in (*self._idle, *self._busy) if worker.hello}
        if reasons := sorted(said - {""}):
            return f"not in force for all workers: {'; '.join(reasons)}"
        return f"in force: {confinement.in_words()}"

    async def run(self) -> None:
        """Look after idle workers until cancelled: note who has died, end who is needed no more."""
        while True:
            await asyncio.sleep(_CARE_S)
            now = time.monotonic()
            for worker in list(self._idle):
                worker.trim_log()
                if not worker.is_usable or now - worker.idle_since > self._config.idle_s:
                    self._retire(worker)
            self._dispatch()
            self._prepare(now)

    def prewarm(self, environment: Digest, fields: Mapping[str, str], interpreter: str) -> None:
        """Start a worker in the background, where none is there for the environment and there is room."""
        start = Start(interpreter, worker_kind(fields))
        known = self._recall(start)
        if known and known.hello and not _states(known, environment):
            self._on_other_environment()
        if self._closed or not self._config.prewarm or (known and (known.failure or not _states(known, environment))):
            return
        here = any(_serves(worker, environment) for worker in (*self._idle, *self._busy))
        coming = any(_start_of(worker) == start for worker in self._starting)
        if not here and not coming and self._count() < self._config.max_workers:
            self._begin(start, environment, waited_for=False)

    def prewarm_first(self) -> None:
        """Start a worker of the interpreter that is told to come first, before anybody says hello."""
        if interpreter := self._config.first_interpreter:
            self._begin(Start(interpreter, "graphs"), None, waited_for=False)

    @contextlib.asynccontextmanager
    async def lease(
        self,
        environment: Digest | None,
        fields: Mapping[str, str],
        interpreter: str,
        *,
        on_position: Callable[[int], None],
        key: str = "",
        is_background: bool = False,
    ) -> AsyncIterator[WorkerProcess]:
        """Wait for a worker of the environment and have it for one job; `on_position` hears the place in the queue.

        Jobs that nobody waits for, which are background, get one after all others; `key` is what `hurry` knows it by.

        Where the environment is None, for any worker of the interpreter: which environment it has, its hello says.

        Raises `JobRefusedError` where no worker of the interpreter can serve the environment, `DrainingError` where
        the pool closes first.
        """
        if self._closed:
            raise DrainingError
        request = Request(
            environment=environment,
            fields=fields,
            start=Start(interpreter, worker_kind(fields)),
            key=key,
            is_background=is_background,
            granted=asyncio.get_running_loop().create_future(),
        )
        self._requests.add(request)
        try:
            self._dispatch()
            while not request.granted.done():
                on_position(self._requests.position(request))
                await asyncio.wait({request.granted}, timeout=_CARE_S)
            worker = request.granted.result()
        except asyncio.CancelledError:
            if request.granted.done() and not request.granted.cancelled() and not request.granted.exception():
                self._release(request.granted.result())
            raise
        finally:
            if request in self._requests:
                self._requests.remove(request)
        try:
            yield worker
        finally:
            self._release(worker)

    def hurry(self, environment: Digest, key: str) -> None:
        """Note that somebody waits for this graph now: its job goes before others, its worker takes its full share."""
        if self._requests.hurry(environment, key):
            self._dispatch()
        for worker in self._busy:
            if worker.job is not None and (worker.job.environment, worker.job.key) == (environment, key):
                self._spawn_task(worker.come_forward())

    async def views(self) -> list[WorkerView]:
        """Return what an operator sees of each worker."""
        states = (("starting", self._starting), ("idle", self._idle), ("busy", self._busy))
        workers = [(state, worker) for state, group in states for worker in group]
        return [
            WorkerView(
                pid=worker.pid,
                environment=worker.hello.environment if worker.hello else "",
                state=state,
                key=worker.job.key if worker.job else "",
                elapsed_s=time.monotonic() - worker.job_started if worker.job else 0.0,
                jobs_done=worker.jobs_done,
                rss_bytes=await worker.rss_bytes(),
            )
            for state, worker in workers
        ]

    def hand_back(self) -> None:
        """Take no more requests, and fail those that wait; jobs that run go on."""
        self._closed = True
        for request in self._requests:
            if not request.granted.done():
                request.granted.set_exception(DrainingError())
        self._requests.clear()

    async def close(self) -> None:
        """End every worker, busy ones, too, and wait until those who had one have noticed."""
        self.hand_back()
        await self._header_maker.close()
        workers = [*self._starting, *self._idle, *self._busy]
        await asyncio.gather(*(worker.end(grace_s=_END_GRACE_S if worker in self._idle else 0) for worker in workers))
        # Each hands back a worker that has ended, and that begins a task here.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._none_busy.wait(), _END_GRACE_S)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _dispatch(self) -> None:
        """Give each waiting request what it can have now: a worker, a refusal, or a start on its behalf."""
        coming = Counter(_start_of(worker) for worker in self._starting)
        for request in self._requests:
            if request.granted.done():
                self._requests.remove(request)
            elif worker := self._find_idle(request):
                self._idle.remove(worker)
                self._busy.append(worker)
                self._none_busy.clear()
                self._grant(request, worker)
            elif refusal := self._refusal(request):
                self._requests.remove(request)
                request.granted.set_exception(refusal)
            elif coming[request.start]:
                coming[request.start] -= 1
                if not request.is_background:
                    self._bring_forward(request.start)
            elif self._make_room():
                self._begin(request.start, request.environment, waited_for=not request.is_background)

    def _bring_forward(self, start: Start) -> None:
        for worker in self._starting:
            if worker.stands_back and _start_of(worker) == start:
                self._spawn_task(worker.come_forward())

    def _grant(self, request: Request, worker: WorkerProcess) -> None:
        self._requests.remove(request)
        request.granted.set_result(worker)

    def _find_idle(self, request: Request) -> WorkerProcess | None:
        """Return the worker used last, so that those not needed grow old and end."""
        for worker in reversed(self._idle):
            if _suits(worker, request) and worker.is_usable:
                return worker
        return None

    def _refusal(self, request: Request) -> JobRefusedError | None:
        known = self._recall(request.start)
        if known is None or (request.environment is not None and _states(known, request.environment)):
            return None
        if known.hello is None:
            return JobRefusedError("ENVIRONMENT", known.failure)
        if request.environment is None:
            return None
        return JobRefusedError(
            "ENVIRONMENT",
            other_environment(known.hello.fields, request.fields),
            differing_fields(known.hello.fields, request.fields),
        )

    def _recall(self, start: Start) -> _Known | None:
        known = self._known.get(start)
        if known and known.until < time.monotonic():
            del self._known[start]
            return None
        return known

    def _make_room(self) -> bool:
        """Return whether one more worker may start now; where none may, end an idle one that the request cannot use."""
        if self._closed:
            return False
        if self._count() < self._config.max_workers:
            return True
        if self._idle and not self._ending:
            self._retire(self._idle[0])
        return False

    def _count(self) -> int:
        return len(self._starting) + len(self._idle) + len(self._busy) + len(self._ending)

    def _begin(self, start: Start, environment: Digest | None, *, waited_for: bool) -> None:
        worker = WorkerProcess(self._config, self._slot(start))
        self._starting.append(worker)
        self._spawn_task(self._start(worker, environment, waited_for=waited_for))

    def _slot(self, start: Start) -> WorkerSlot:
        taken = {worker.slot.log for worker in (*self._starting, *self._idle, *self._busy, *self._ending)}
        free = next(log for n in range(len(taken) + 1) if (log := self._logs / f"worker-{n}.log") not in taken)
        # Never one that another has used: a worker that somebody's graph has taken over must not prepare the next's.
        scratch = self._scratch / f"worker-{next(self._numbers)}"
        order = Order(scratch=scratch, readable=(self._headers,), hidden=self._hidden)
        return WorkerSlot(
            interpreter=start.interpreter,
            kind=start.kind,
            scratch=scratch,
            log=free,
            headers=self._headers,
            order=order if self._config.sandbox != "off" else None,
            variables=self._config.variables,
        )

    def _prepare(self, now: float) -> None:
        """Make, while nobody needs anything, what workers to come would wait for."""
        if self._closed or self._starting or self._busy:
            return
        for worker in self._idle:
            if worker.hello is None or worker.slot.kind != "graphs":
                continue
            if now - worker.idle_since > self._config.headers_after_s and self._header_maker.wants(worker.hello):
                self._spawn_task(self._header_maker.make(self._slot(_start_of(worker)), worker.hello))
                return

    async def _start(self, worker: WorkerProcess, environment: Digest | None, *, waited_for: bool) -> None:
        start, failure, hello = _start_of(worker), "", None
        try:
            facts = await self._facts_of(environment) if environment else b""
            hello = await worker.start((environment, facts) if environment and facts else None, waited_for=waited_for)
        except WorkerLostError as error:
            failure = str(error)
            logger.warning("%s: %s", start, failure)
        finally:
            self._starting.remove(worker)
            if hello is None or self._closed:
                await asyncio.shield(worker.end(grace_s=0))
                await asyncio.to_thread(shutil.rmtree, worker.slot.scratch, ignore_errors=True)
        self._counters.add(metrics.WORKERS_STARTED if hello else metrics.WORKERS_FAILED)
        self._failures[start] = 0 if hello else self._failures[start] + 1
        if hello or self._failures[start] > 1:
            # A single failure may have been the machine's and not the interpreter's; the next request tries again.
            lasts_s = self._config.hello_valid_s if hello else self._config.retry_start_s
            self._known[start] = _Known(hello=hello, failure=failure, until=time.monotonic() + lasts_s)
        if hello and not self._closed:
            logger.info("worker %d is ready for environment %s", worker.pid, hello.environment[:12])
            self._say_unconfined(start, hello)
            self._idle.append(worker)
        self._dispatch()
        if hello and environment and hello.environment != environment:
            self._on_other_environment()
        if hello:
            await self._on_hello(hello)

    def _say_unconfined(self, start: Start, hello: WorkerHello) -> None:
        """Say once what nothing keeps from files and network, unless it was asked for."""
        if hello.unconfined and self._config.sandbox != "off" and start not in self._said_unconfined:
            self._said_unconfined.add(start)
            logger.warning("workers of %s are not confined: %s", start, hello.unconfined)

    def _release(self, worker: WorkerProcess) -> None:
        self._busy.remove(worker)
        if not self._busy:
            self._none_busy.set()
        self._idle.append(worker)
        spent = worker.jobs_done >= self._config.jobs_per_worker
        if spent or self._closed or not worker.is_usable:
            self._retire(worker)
        self._dispatch()

    def _retire(self, worker: WorkerProcess) -> None:
        self._idle.remove(worker)
        if worker.has_died:
            logger.warning("worker %d died while it had no job", worker.pid)
            self._counters.add(metrics.WORKERS_DIED)
        self._ending.append(worker)
        self._spawn_task(self._end(worker))

    async def _end(self, worker: WorkerProcess) -> None:
        try:
            await worker.end(grace_s=_END_GRACE_S)
        finally:
            self._ending.remove(worker)
        self._dispatch()
        # What it compiled is in the store, and scratch must not grow for ever.
        await asyncio.to_thread(shutil.rmtree, worker.slot.scratch, ignore_errors=True)

    def _spawn_task(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _start_of(worker: WorkerProcess) -> Start:
    return Start(worker.slot.interpreter, worker.slot.kind)


def _suits(worker: WorkerProcess, request: Request) -> bool:
    if request.environment is None:
        return _start_of(worker) == request.start
    return _serves(worker, request.environment)


def _serves(worker: WorkerProcess, environment: Digest) -> bool:
    return worker.hello is not None and worker.hello.environment == environment


def _states(known: _Known, environment: Digest) -> bool:
    return known.hello is not None and known.hello.environment == environment
