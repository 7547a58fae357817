"""A process's session with its daemon: graphs and kernels are asked for, published and reported through it.

Guarantees: no method raises, except `exchange`, whatever the daemon does or does not do (only `KeyboardInterrupt` and
`SystemExit` pass through); every wait for one graph lies inside one deadline; each kind of failure is counted and
logged once. An artifact that is returned is verified (see `compile_client.transport.connection`).

Not guaranteed: that an artifact's guards hold, which is torch's to say; that what `publish_later` was given arrives.

    client = DaemonClient(config, environment)
    request = client.begin_graph(key)
    for artifact in request.lookup():
        ...                                 # install it, ask torch's own lookup again
    outcome = request.compile(CompileRequest(...))      # Artifact, Refusal, or None after a failure
    ...                                     # torch compiles here, and then
    client.publish_later(LocalCompile(...))
    client.close()                          # also at the end of the process, by itself
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping

from compile_client.config import ClientConfig
from compile_client.errors import ClientError
from compile_client.log import logger
from compile_client.reporting.counters import Counters
from compile_client.reporting.process_report import ProcessReport, program_name
from compile_client.reporting.run_reporter import RunReporter
from compile_client.session.background_compiles import BackgroundCompiles, DaemonCompiler
from compile_client.session.publisher import DaemonStore, Publisher
from compile_client.session.request import GraphRequest
from compile_client.transport.circuit_breaker import CircuitBreaker
from compile_client.transport.connection import Connection
from compile_client.transport.deadline import Deadline
from compile_client.transport.messages import LocalCompile
from compile_client.transport.reconnect import ReconnectingChannel
from compile_client.transport.records import GraphNote
from compile_wire import tracing
from compile_wire.digest import Digest
from compile_wire.facts import Facts
from compile_wire.kernel.environment import ArtifactKind


class DaemonClient:
    """Connects a process with its daemon, for one environment. Safe to call from any thread.

    A forked child starts afresh: no connection, no thread, counters at zero; it reports only if it compiles.
    """

    background: BackgroundCompiles
    """Compiles that nobody here waits for."""
    _channel: ReconnectingChannel
    _kind: ArtifactKind
    _publisher: Publisher
    _reporter: RunReporter
    _environment_seen: Digest | None
    _closed: bool

    def __init__(
        self,
        config: ClientConfig,
        environment: Callable[[], Mapping[str, str]],
        *,
        program: str | None = None,
        env: MutableMapping[str, str] | None = None,
        report: ProcessReport | None = None,
        kind: ArtifactKind = "graph",
    ) -> None:
        """Cheap: nothing is opened. `environment` describes this process; it is called when a daemon listens.

        A second client of a process, for its kernels, is given the `report` of the first, which ends it. `env` is where
        the report's file is claimed, the process's own environment by default.
        """
        self.config = config
        self.report = ProcessReport(config, env=env) if report is None else report
        self._ends_report = report is None
        self._environment = environment
        self._program = program_name() if program is None else program
        self._kind = kind
        self._abandoned: list[object] = []
        self._finishers: list[Callable[[], None]] = []
        self._local = threading.local()
        self._start_afresh()
        this: weakref.ref[DaemonClient] = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _after_fork(this))
        atexit.register(self.close)

    @property
    def counters(self) -> Counters:
        """This process's counters; ask again each time, since a forked child has others."""
        return self.report.counters

    def available(self) -> bool:
        """Whether a daemon can be asked now; connects where that was not done yet.

        Counts what it finds wrong. Before `begin_graph` it is not needed: a request finds out by itself.
        """
        reached = False
        start = time.monotonic()
        with self.report.guarding():
            span = tracing.span("connect") if self._channel.connection is None else contextlib.nullcontext()
            with span:
                self._channel.ensure_connected(Deadline(self.config.graph_timeout_s))
            reached = True
        self._local.spent_s = time.monotonic() - start
        self.counters.count_wait(self._local.spent_s)
        return reached

    def facts(self) -> Facts:
        """Return what the daemon knows of this environment; nothing where it is not connected."""
        connection = self._channel.connection
        return connection.facts if connection is not None else Facts()

    def environment_id(self) -> Digest | None:
        """Return the name of this process's environment; None where no daemon is connected."""
        connection = self._channel.connection
        return connection.environment_id if connection is not None else None

    def may_publish(self) -> bool:
        """Whether it is worth packing an artifact: connected, and neither side forbids it."""
        connection = self._channel.connection
        return connection is not None and connection.may_publish and not self.config.read_only

    def begin_graph(self, key: str) -> GraphRequest:
        """Start the dealings about one graph. From now on its deadline runs, less what `available` took for it."""
        spent_s, self._local.spent_s = getattr(self._local, "spent_s", 0.0), 0.0
        return GraphRequest(self, key, Deadline(max(0.0, self.config.graph_timeout_s - spent_s)))

    @contextlib.contextmanager
    def exchange(self, deadline: Deadline) -> Iterator[Connection]:
        """Lend the connection for one question, and count the wait. Raises `ClientError`; see `report.guarding`."""
        start = time.monotonic()
        try:
            with self._channel.exchange(deadline) as connection:
                yield connection
        finally:
            self.counters.count_wait(time.monotonic() - start)

    def reload_credentials(self, error: ClientError) -> None:
        """Have the daemon's secret read again before the next question: what it signed does not verify."""
        self._channel.failed(error)

    def publish_later(self, compiled: LocalCompile) -> bool:
        """Queue what was compiled here for the daemon; return at once, False where it was dropped."""
        queued = False
        if not self.config.read_only:
            with self.report.guarding():
                queued = self._publisher.offer(compiled)
        return queued

    def before_close(self, finish: Callable[[], None]) -> None:
        """Have something of the caller's ended before the process's counters are written."""
        self._finishers.append(finish)

    def remember_graph(self, graph: GraphNote) -> None:
        """Remember what became of a graph; the daemon is told in the background."""
        logger.debug(
            "compile daemon: graph %d (%s): %s", graph.number, graph.key[:8], graph.outcome,
            extra={
                "daemon_event": "graph", "daemon_graph": graph.number, "daemon_key": graph.key,
                "daemon_outcome": graph.outcome, "daemon_reason": graph.reason,
                "daemon_seconds": round(graph.waited_s + graph.spent_s, 3),
            },
        )  # fmt: skip
        self._reporter.note(graph)

    def close(self) -> None:
        """Publish what is waiting, within its bound; hang up; report. Called at exit; a second call does nothing."""
        atexit.unregister(self.close)
        if self._closed:
            return
        self._closed = True
        explanation: list[str] = []
        try:
            for finish in self._finishers:
                finish()
            self.background.flush(self.config.graph_timeout_s)
            end = time.monotonic() + self.config.flush_s
            self._publisher.flush(self.config.flush_s)
            self._environment_seen = self.environment_id()  # which the report names, when the channel is closed
            explanation = self._reporter.finish(max(0.0, end - time.monotonic()))
            if self.config.explain and self._ends_report:
                explanation = [*explanation, *self.report.traces()]
            self._channel.close()
        finally:  # also when an impatient user interrupts the flush
            if self._ends_report:
                self.report.finish(self.background.line(), explanation)
            else:
                self.report.explain(explanation)

    def _warm_report(self) -> dict[str, object]:
        from compile_torch.settings import recompile_limit

        return {
            "environment": self._environment_seen or self.environment_id() or "",
            "recompile_limit": recompile_limit(),
            "graphs": self.background.as_rows(),
        }

    def _start_afresh(self, *, forked_in_call: bool = False) -> None:
        config = self.config
        self._closed = False
        self._environment_seen = None
        self._channel = ReconnectingChannel(
            config, self._environment, self._program, CircuitBreaker(), usable=not forked_in_call
        )
        self.background = BackgroundCompiles(
            DaemonCompiler(config, self._channel, self.report), max_in_flight=config.ahead_in_flight
        )
        if config.warm and self._ends_report:
            self.counters.warm = self._warm_report
        store = DaemonStore(config, self._channel, self.report)
        self._publisher = Publisher(
            store.publish,
            self.counters.count_unpublished,
            max_items=config.publish_queue_items,
            max_bytes=config.publish_queue_bytes,
        )
        self._reporter = RunReporter(config, self._channel, self.report, self._kind)

    def _forked(self) -> None:
        """Give up what the parent had, in a forked child, without touching it: its locks may be held for ever."""
        # Kept, not freed: gRPC's own clean-up would take locks of threads that do not exist here.
        self._abandoned.extend((self._channel, self._publisher, self.background, self._reporter))
        self._start_afresh(forked_in_call=self._channel.busy)


def _after_fork(this: weakref.ref[DaemonClient]) -> None:
    client = this()
    if client is not None:
        client._forked()
