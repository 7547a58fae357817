"""Single flight: one compile per key and environment, however many ask.

Guarantees: of all who ask for a key while it is being compiled, one compile serves all. Each waiter has its own stream
and its own deadline; one that goes disturbs no other, and when all have gone the compile is still finished and stored.
A worker that dies costs one retry on another; failures are not remembered, except for graphs that kill workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from compile_wire import tracing
from compile_wire.digest import Digest
from compile_wire.errors import WireError
from compiler_daemon import metrics
from compiler_daemon.compiles.cache import Cache
from compiler_daemon.compiles.crash_quarantine import FlightKey, GraphQuarantine
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.compiles.workplaces import Worker, Workplaces
from compiler_daemon.config import FlightConfig
from compiler_daemon.errors import (
    DaemonError,
    DrainingError,
    FarmAwayError,
    JobRefusedError,
    QueueFullError,
    RefusalReason,
    WorkerLostError,
)
from compiler_daemon.jobs import (
    CompileResult,
    Entry,
    Event,
    FlightView,
    Job,
    QuarantinedView,
    QueuedEvent,
    Refusal,
    RunningEvent,
    check_worker_kind,
)
from compiler_daemon.store import StoreError
from compiler_daemon.text import numbers

if TYPE_CHECKING:
    from compiler_daemon.compiles.turns import Turn, Turns

logger = logging.getLogger(__name__)

_TRIES = 2
_DRAINING = Refusal(reason="DRAINING", message="the daemon stops")


class _Compile:
    """Follows one compile under way, and tells its waiters about it."""

    def __init__(self, job: Job, *, position: int, tried: frozenset[Digest]) -> None:
        self.job = job
        self.tried = tried
        """What the first who asked had already."""
        self.asked = time.monotonic()
        self.started: float | None = None
        self.waiters = 0
        self.position = position
        self.phase = "starting"
        self.expected_s = 0.0
        self.outcome: Entry | Refusal | DaemonError | StoreError | None = None
        self._changed = asyncio.Event()

    def event(self) -> QueuedEvent | RunningEvent:
        """Return what its waiters are told now."""
        if self.started is None:
            return QueuedEvent(position=self.position)
        return RunningEvent(elapsed_s=time.monotonic() - self.started, phase=self.phase, expected_s=self.expected_s)

    def view(self, now: float, eta_s: float | None) -> FlightView:
        """Return it as an operator sees it; `eta_s` is None where there is no history."""
        return FlightView(
            environment=self.job.environment,
            key=self.job.key,
            program=self.job.program,
            phase=self.phase if self.started is not None else "queued",
            position=self.position if self.started is None else 0,
            waited_s=now - self.asked,
            elapsed_s=now - self.started if self.started is not None else 0.0,
            expected_s=self.expected_s,
            eta_s=eta_s,
            waiters=self.waiters,
        )

    def tell(self) -> None:
        """Wake the waiters: something has changed."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self, timeout_s: float) -> None:
        """Wait until something changes, or for `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass

    def set_position(self, position: int) -> None:
        """Note the place in the queue."""
        if position != self.position:
            self.position = position
            self.tell()

    def set_phase(self, phase: str) -> None:
        """Note what is being done."""
        if self.started is None:
            self.started = time.monotonic()
        self.phase = phase
        self.tell()

    def wait_for(self, turn: Turn) -> None:
        """Note that another node compiles it."""
        self.expected_s = turn.expected_s or self.expected_s
        running = ""
        if turn.running_s > 0:
            running = f", {numbers.roughly(turn.running_s)}"
            running += f" of about {numbers.roughly(turn.expected_s)}" if turn.expected_s else ""
        self.set_phase(f"compiled on {turn.host or 'another node'}{running}")

    def finish(self, outcome: Entry | Refusal | DaemonError | StoreError) -> None:
        """Note how it ended."""
        self.outcome = outcome
        self.tell()


class SingleFlight:
    """Runs one compile for each key, however many clients ask for it."""

    def __init__(
        self,
        config: FlightConfig,
        *,
        cache: Cache,
        environments: Environments,
        workplaces: Workplaces,
        counters: metrics.Counters,
        on_refused: Callable[[Job], Awaitable[None]] | None = None,
        turns: Turns | None = None,
    ) -> None:
        """`on_refused` is told of each graph that a worker could not compile; it must not raise.

        `turns` say whether another node compiles a graph already; None where there are no other nodes.
        """
        self._turns = turns
        self._config = config
        self._on_refused = on_refused
        self._cache = cache
        self._environments = environments
        self._workplaces = workplaces
        self._counters = counters
        self._quarantine = GraphQuarantine(lasts_s=config.quarantine_s)
        self._compiles: dict[FlightKey, _Compile] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False
        self._finished = 0

    async def compile(self, job: Job, have: Collection[Digest]) -> AsyncGenerator[Event, None]:
        """Yield what happens, at last an `Entry` or a `Refusal`. Ending the iteration early disturbs nobody.

        Raises `EnvironmentUnknownError`, `EnvironmentKindError`, `QueueFullError`, and what the store raises where a
        result cannot be kept.
        """
        check_worker_kind(job.kind, job.environment, self._environments.fields(job.environment))
        self._counters.add(metrics.COMPILES_ASKED)
        if found := await self._find(job, have):
            self._counters.add(metrics.COMPILES_FOUND)
            yield found[0]
            return
        # Twice: who joins a compile may get what it has tried already, and then has a right to its own.
        for _ in range(_TRIES):
            outcome: Entry | Refusal | DaemonError | StoreError | None = self._refusal(job)
            if outcome is None:
                compile_ = self._join(job, frozenset(have))
                compile_.waiters += 1
                try:
                    while compile_.outcome is None:
                        yield compile_.event()
                        if compile_.outcome is None:
                            await compile_.change(self._config.event_s)
                finally:
                    compile_.waiters -= 1
                outcome = compile_.outcome
            if isinstance(outcome, Exception):
                raise outcome
            if isinstance(outcome, Refusal) or outcome.digest not in have:
                yield outcome
                return
        yield self._refuse("UNCACHEABLE", "the compile gave an artifact that was tried already")

    async def drain(self, limit_s: float) -> bool:
        """Take no new graphs, hand back those that wait, and give those that run until the limit.

        Returns whether waiters were given an artifact whose blobs they have yet to read.
        """
        self._draining = True
        self._workplaces.hand_back()
        compiles = list(self._compiles.values())
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        return any(isinstance(compile_.outcome, Entry) and not compile_.outcome.blobs for compile_ in compiles)

    def views(self) -> list[FlightView]:
        """Return the compiles under way and those that wait, in the order in which they are expected to be done."""
        now = time.monotonic()
        running = [compile_ for compile_ in self._compiles.values() if compile_.started is not None]
        waiting = [compile_ for compile_ in self._compiles.values() if compile_.started is None]
        waiting.sort(key=lambda compile_: (compile_.position, compile_.asked))
        views = []
        # When each worker is free, if all goes as before; None as soon as nothing is known of a graph before.
        free: list[float] | None = []
        for compile_ in running:
            known = compile_.expected_s > 0
            left = max(0.0, compile_.expected_s - (now - (compile_.started or now)))
            views.append(compile_.view(now, left if known else None))
            free = [*free, left] if known and free is not None else None
        for compile_ in waiting:
            eta: float | None = None
            if free and compile_.expected_s > 0:
                free.sort()
                eta = free[0] = free[0] + compile_.expected_s
            else:
                free = None
            views.append(compile_.view(now, eta))
        return views

    def quarantined(self) -> list[QuarantinedView]:
        """Return the graphs that are refused for a while."""
        return self._quarantine.views()

    async def _find(self, job: Job, have: Collection[Digest]) -> list[Entry]:
        """Look into the store; again where a compile finished meanwhile, because it may have been this one."""
        while True:
            finished = self._finished
            found = await self._cache.find(job.environment, job.key, have)
            if found or finished == self._finished:
                return found

    def _refusal(self, job: Job) -> Refusal | None:
        if self._draining:
            return self._refuse("DRAINING", _DRAINING.message)
        if reason := self._quarantine.reason((job.environment, job.key)):
            return self._refuse("WORKER_LOST", reason)
        return None

    def _refuse(self, reason: RefusalReason, message: str, fields: tuple[str, ...] = ()) -> Refusal:
        self._counters.add(metrics.COMPILES_REFUSED)
        self._counters.add(f"{metrics.COMPILES_REFUSED}.{reason.lower()}")
        return Refusal(reason=reason, message=message, fields=fields)

    def _join(self, job: Job, have: frozenset[Digest]) -> _Compile:
        key = (job.environment, job.key)
        if compile_ := self._compiles.get(key):
            self._counters.add(metrics.COMPILES_JOINED)
            if compile_.job.is_background and not job.is_background:
                compile_.job = replace(compile_.job, ahead=False)
                self._workplaces.hurry(job)
            return compile_
        waiting = [len(compile_.job.graph) for compile_ in self._compiles.values() if compile_.started is None]
        if len(waiting) >= self._config.max_queued or sum(waiting) > self._config.max_queued_bytes:
            raise QueueFullError(f"{len(waiting)} graphs of {sum(waiting)} bytes wait for a worker already")
        compile_ = self._compiles[key] = _Compile(job, position=len(waiting), tried=have)
        task = asyncio.create_task(self._run(key, compile_))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return compile_

    async def _run(self, key: FlightKey, compile_: _Compile) -> None:
        job = compile_.job
        self._counters.add(metrics.COMPILES_STARTED)
        outcome: Entry | Refusal | DaemonError | StoreError = _DRAINING
        try:
            outcome = await self._attempt(key, compile_)
            self._counters.add(metrics.COMPILES_DONE)
            logger.info("compiled %s for %s in %.1f s", job.key[:16], job.program or "?", outcome.compile_s)
        except JobRefusedError as error:
            outcome = self._refuse(error.reason, str(error), error.fields)
            if self._on_refused is not None:
                await self._on_refused(job)
            logger.info("refused %s: %s, %s", job.key[:16], error.reason, error)
        except DrainingError:
            outcome = self._refuse("DRAINING", _DRAINING.message)
        except (DaemonError, StoreError) as error:
            outcome = error
            self._counters.add(metrics.COMPILES_FAILED)
            logger.warning("%s could not be kept: %s", job.key[:16], error)
        except Exception:
            outcome = DaemonError("internal error")
            raise
        finally:
            if self._turns is not None:
                self._turns.left(job)
            del self._compiles[key]
            self._finished += 1
            compile_.finish(outcome)

    async def _attempt(self, key: FlightKey, compile_: _Compile) -> Entry:
        job = compile_.job
        compile_.expected_s = await self._cache.expected_seconds(job.environment, job.key)
        fields = self._environments.fields(job.environment)
        deaths: list[str] = []
        waited = only_here = False
        while len(deaths) < _TRIES:
            # What another node has compiled needs no worker.
            if found := await self._cache.fetch(job.environment, job.key, compile_.tried):
                self._note_merged(waited)
                return found
            asked_ns = time.time_ns()
            is_remote = False
            try:
                async with self._workplaces.lease(
                    compile_.job, fields, only_here=only_here, on_position=compile_.set_position
                ) as worker:
                    is_remote = self._workplaces.is_remote(worker)
                    tracing.passed("queue", asked_ns)
                    async with self._turn(compile_) as turn:
                        if turn is None or turn.is_ours:
                            if turn is not None and turn.found is not None:
                                self._note_merged(waited)
                                return turn.found
                            entry = await self._compiled(key, compile_, worker)
                            if is_remote:
                                self._counters.add(metrics.FARM_COMPILES)
                            return entry
            except FarmAwayError as error:
                only_here = True
                self._counters.add(metrics.FARM_AWAY)
                logger.info("%s is compiled here, not by the farm: %s", job.key[:16], error)
            except WorkerLostError as error:
                # A node that hands over something else, or kills its workers, is not asked again for this graph.
                only_here = only_here or is_remote
                deaths.append(str(error))
                logger.warning("a worker was lost over %s: %s", job.key[:16], error)
                self._counters.add(metrics.WORKERS_LOST)
                self._note_death(key, str(error))
            except JobRefusedError as error:
                if error.reason == "LIMIT":
                    self._counters.add(metrics.WORKERS_OVER_LIMIT)
                    self._note_death(key, str(error))
                raise
            else:
                # Another node compiles it: the worker is free for other graphs meanwhile.
                compile_.wait_for(turn)
                waited = True
                await asyncio.sleep(turn.look_again_s)
        raise JobRefusedError("WORKER_LOST", f"two workers were lost over this graph: {deaths[-1]}")

    def _turn(self, compile_: _Compile) -> contextlib.AbstractAsyncContextManager[Turn | None]:
        """Ask whether the compile is ours; None where no other node could have it."""
        if self._turns is None:
            return contextlib.nullcontext()
        return self._turns.turn(compile_.job, compile_.tried, compile_.expected_s)

    async def _compiled(self, key: FlightKey, compile_: _Compile, worker: Worker) -> Entry:
        job = compile_.job
        compile_.set_phase("starting")
        result = await worker.compile(job, on_phase=compile_.set_phase, sink=self._cache.put_blob)
        compile_.set_phase("storing")
        with tracing.span("store"):
            entry = await self._adopt(compile_, result, worker)
        self._quarantine.forgive(key)
        self._counters.add_seconds(metrics.COMPILE_SECONDS, result.seconds)
        return entry

    async def _adopt(self, compile_: _Compile, result: CompileResult, worker: Worker) -> Entry:
        try:
            return await self._cache.adopt(compile_.job, result, compile_.tried)
        except WireError as error:
            await worker.end(grace_s=0)
            raise WorkerLostError(f"the worker handed over something else: {error}") from error

    def _note_merged(self, waited: bool) -> None:
        if waited:
            self._counters.add(metrics.TIER_MERGED)

    def _note_death(self, key: FlightKey, reason: str) -> None:
        if self._quarantine.note_death(key, reason):
            self._counters.add(metrics.GRAPHS_QUARANTINED)
