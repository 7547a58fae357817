"""The daemon as torch's hook sees it: it has an artifact, makes one, or has nothing to say.

`DaemonClient` is where trouble ends. Guarantees: no method raises, whatever the daemon does or does not do (only
`KeyboardInterrupt` and `SystemExit` pass through); every wait for one graph lies inside one deadline; each kind of
trouble is counted and said once. An artifact that is returned is verified (see `compile_client.transport.connection`).

Not guaranteed: that an artifact's guards hold, which is torch's to say; that what `publish_later` was given arrives.

    client = DaemonClient(config, environment)
    request = client.begin_graph(key)
    for artifact in request.lookup():
        ...                                 # install it, ask torch's own lookup again
    outcome = request.compile(graph)        # Artifact, Refusal, or None after trouble
    ...                                     # torch compiles here, and then
    client.publish_later(LocalCompile(...))
    client.close()                          # also at the end of the process, by itself
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import TypeVar

from compile_client.config import ClientConfig
from compile_client.errors import ClientError, FullError, InternalError
from compile_client.log import Notices, logger, say, set_up_logging
from compile_client.reporting.counters import Report, ReportFile
from compile_client.reporting.reporter import Reporter
from compile_client.session.background_compiles import Ahead, GraphRow, Outcome
from compile_client.session.publisher import Publisher
from compile_client.session.request import GraphRequest
from compile_client.transport.circuit_breaker import CircuitBreaker
from compile_client.transport.connection import Connection
from compile_client.transport.deadline import Deadline
from compile_client.transport.messages import CompileEvent, LocalCompile, Refusal
from compile_client.transport.reconnect import Link
from compile_client.transport.records import GraphNote
from compile_wire import tracing
from compile_wire.digest import Digest
from compile_wire.facts import Facts
from compile_wire.limits import MAX_NAME_TEXT

T = TypeVar("T")

_HERE = "torch compiles here"

_FULL_WAIT_S = 0.5
"""Before a daemon whose queue is full is asked again for a graph that nobody waits for."""


class DaemonClient:
    """Connects a process with its daemon: requests, publishing, reports and failures. Safe to call from any thread.

    A forked child starts anew: no connection, no thread, counters at zero; it reports only if it compiles.
    """

    _notices: Notices
    _report: Report
    _link: Link
    _publisher: Publisher
    _ahead: Ahead
    _environment_seen: Digest | None
    _reporter: Reporter
    _closed: bool

    def __init__(
        self,
        config: ClientConfig,
        environment: Callable[[], Mapping[str, str]],
        *,
        program: str | None = None,
        env: MutableMapping[str, str] | None = None,
        elder: DaemonClient | None = None,
    ) -> None:
        """Cheap: nothing is opened. `environment` describes this process; it is called when a daemon listens.

        `env` is where the process's report is claimed, its own environment by default. `elder` is the client of another
        environment of this process: it counts and reports for both.
        """
        set_up_logging(config.log_level)
        self.config = config
        self._environment = environment
        self._program = program_name() if program is None else program
        self._elder = elder
        report = config.report if elder is None else None
        self._file = ReportFile(report, os.environ if env is None else env) if report else None
        self._abandoned: list[object] = []
        self._finishers: list[Callable[[], None]] = []
        self._local = threading.local()
        self._start_afresh(Notices())
        for complaint in config.complaints if elder is None else ():
            self._notices.once(complaint, complaint)
        this: weakref.ref[DaemonClient] = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _after_fork(this))
        atexit.register(self.close)

    @property
    def report(self) -> Report:
        """This process's counters; ask anew each time, since a forked child has others."""
        return self._elder.report if self._elder else self._report

    def available(self) -> bool:
        """Whether a daemon can be asked now; connects where that was not done yet.

        Counts what it finds wrong. Before `begin_graph` it is not needed: a request finds out by itself.
        """

        def reach() -> bool:
            if self._link.connection is None:
                with tracing.span("connect"):
                    self._link.reach(self._deadline())
            else:
                self._link.reach(self._deadline())
            return True

        start = time.monotonic()
        try:
            return self._try(reach) or False
        finally:
            self._local.spent_s = time.monotonic() - start
            self.report.count_wait(self._local.spent_s)

    def facts(self) -> Facts:
        """Return what the daemon knows of this environment; nothing where it is not connected."""
        connection = self._link.connection
        return connection.facts if connection is not None else Facts()

    def environment_id(self) -> Digest | None:
        """Return the name of this process's environment; None where no daemon is connected."""
        connection = self._link.connection
        return connection.environment_id if connection is not None else None

    def may_publish(self) -> bool:
        """Whether it is worth packing an artifact: connected, and neither side forbids it."""
        connection = self._link.connection
        return connection is not None and connection.may_publish and not self.config.read_only

    def begin_graph(self, key: str) -> GraphRequest:
        """Start the dealings about one graph. From now on its deadline runs, less what `available` took for it."""
        spent_s, self._local.spent_s = getattr(self._local, "spent_s", 0.0), 0.0
        return GraphRequest(self, key, Deadline(max(0.0, self.config.graph_timeout_s - spent_s)))

    def publish_later(self, compiled: LocalCompile) -> bool:
        """Queue what was compiled here for the daemon; return at once, False where it was dropped."""
        if self.config.read_only:
            return False
        return self._try(lambda: self._publisher.offer(compiled)) or False

    def compile_ahead(self, key: str, code: str, graph: bytes) -> None:
        """Have a graph compiled that nobody here waits for; return as soon as there is room for the request."""
        self._ahead.ask(key, code, graph)

    def note_graph(self, row: GraphRow) -> None:
        """Compile-only: remember what came of a graph that was not compiled ahead."""
        self._ahead.note(row)

    def trouble(self, error: ClientError, consequence: str = _HERE) -> None:
        """Count a trouble and say it once: for trouble that the caller has with an artifact, as `InstallError`."""
        self.report.count_fallback(error.reason)
        self._local.trouble = (error.reason, str(error))
        self._notices.trouble(error, consequence)
        logger.debug("%s", error.reason, exc_info=error)

    @contextlib.contextmanager
    def guarding(self, consequence: str = _HERE) -> Iterator[None]:
        """Let no failure into the training, neither the daemon's nor one of the client's own: it is counted and logged.

        What torch raises to steer its own compile is no `Exception`, and passes.
        """
        try:
            yield
        except ClientError as error:
            self.trouble(error, consequence)
        except Exception as error:  # noqa: BLE001 - the promise of the whole client
            fault = InternalError.of(error)
            fault.__cause__ = error  # for the traceback that `trouble` logs
            self.trouble(fault, consequence)

    def before_close(self, finish: Callable[[], None]) -> None:
        """Have something of the caller's ended before the process's counters are written."""
        self._finishers.append(finish)

    def why_here(self, key: str, reason: str, why: str, *, kernel: str = "") -> None:
        """Say why a graph, or `kernel`, is compiled here although the daemon is well; the first of a reason aloud."""
        what = f"kernel {kernel}" if kernel else "graph"
        text = f"{what} {key[:8]} is compiled here ({reason}): {why}"
        kind = "kernel" if kernel else "graph"
        self._notices.once(f"{kind} {reason}", text, logging.INFO, event="compiled_here", reason=reason, key=key)

    def last_trouble(self) -> tuple[str, str] | None:
        """Return the reason and the words of this thread's last trouble since `forget_trouble`."""
        return getattr(self._local, "trouble", None)

    def forget_trouble(self) -> None:
        """A new graph begins in this thread."""
        self._local.trouble = None

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
            self._ahead.flush(self.config.graph_timeout_s)
            end = time.monotonic() + self.config.flush_s
            self._publisher.flush(self.config.flush_s)
            self._environment_seen = self.environment_id()  # which the report names, when the link is closed
            explanation = self._reporter.finish(max(0.0, end - time.monotonic()))
            self._link.close()
        finally:  # also when an impatient user interrupts the flush
            line = "" if self._elder else (self._ahead.line() or self._report.line())
            if line:
                say(line, event="summary", seconds=round(self.report.seconds_saved, 3))
            for part in explanation:
                say(part, event="explanation")
            if self._file is not None:
                self._file.write(self._report)

    def ask(self, deadline: Deadline, exchange: Callable[[Connection], T]) -> T | None:
        """Return the answer to one graph's question, or None after trouble, which is then counted and said."""
        start = time.monotonic()
        try:
            return self._try(lambda: self._link.call(deadline, exchange))
        finally:
            self.report.count_wait(time.monotonic() - start)

    def doubt(self, error: ClientError) -> None:
        """Have the daemon's secret read again before the next question: what it signed does not verify."""
        self._link.failed(error)

    def _try(self, action: Callable[[], T]) -> T | None:
        answer: T | None = None
        with self.guarding():
            answer = action()
        return answer

    def _publish(self, compiled: LocalCompile) -> None:
        """In the publisher's thread: hand one artifact in, and let no trouble out."""
        deadline = Deadline(self.config.graph_timeout_s)
        try:
            self._link.call(deadline, lambda connection: connection.publish(compiled, deadline))
        except ClientError as error:
            self._not_published(error.reason)
            self._notices.trouble(error, "what was compiled here is not published")
        except Exception as error:  # noqa: BLE001 - as in `guarding`
            self._not_published(InternalError.reason)
            logger.debug("a fault of the compile client", exc_info=error)
        else:
            self.report.count_published()

    def _answer_ahead(self, key: str, graph: bytes) -> tuple[Outcome, float, str]:
        """In a thread of its own: have one graph compiled, and let no trouble out."""
        deadline = Deadline(self.config.graph_timeout_s)
        compiled = False

        def on_event(event: CompileEvent | None) -> None:
            nonlocal compiled
            compiled = compiled or event is not None

        while True:
            try:
                answer = self._link.call(
                    deadline,
                    lambda connection: connection.compile(
                        key, graph, (), on_event=on_event, deadline=deadline, ahead=True
                    ),
                )
            except FullError as error:
                # Nobody waits for this graph, so it can wait itself; the deadline ends it.
                if deadline.remaining() > _FULL_WAIT_S:
                    time.sleep(_FULL_WAIT_S)
                    continue
                return self._lost(error)
            except ClientError as error:
                return self._lost(error)
            except Exception as error:  # noqa: BLE001 - as in `guarding`
                logger.debug("a fault of the compile client", exc_info=error)
                return self._lost(InternalError.of(error))
            if isinstance(answer, Refusal):
                return "refused", 0.0, f"{answer.reason}: {answer.message}"
            return "compiled" if compiled else "there", answer.manifest.compile_s, ""

    def _lost(self, error: ClientError) -> tuple[Outcome, float, str]:
        self.trouble(error, "the graph is not compiled ahead")
        return "lost", 0.0, f"{error.reason}: {error}"

    def _warm_report(self) -> dict[str, object]:
        from compile_torch.settings import recompile_limit

        return {
            "environment": self._environment_seen or self.environment_id() or "",
            "recompile_limit": recompile_limit(),
            "graphs": self._ahead.as_rows(),
        }

    def _not_published(self, reason: str) -> None:
        self.report.count_unpublished(reason)

    def _deadline(self) -> Deadline:
        return Deadline(self.config.graph_timeout_s)

    def _start_afresh(self, notices: Notices, *, forked_in_call: bool = False) -> None:
        self._closed = False
        self._notices = notices
        self._report = Report()
        self._environment_seen = None
        self._ahead = Ahead(self._answer_ahead, max_in_flight=self.config.ahead_in_flight)
        if self.config.warm:
            self._report.warm = self._warm_report
        self._link = Link(self.config, self._environment, self._program, CircuitBreaker(), usable=not forked_in_call)
        self._publisher = Publisher(
            self._publish,
            self._not_published,
            max_items=self.config.publish_queue_items,
            max_bytes=self.config.publish_queue_bytes,
        )
        elder = self._elder._reporter if self._elder else None
        self._reporter = Reporter(self.config, self._link, self._report.fallbacks, elder=elder)

    def _forked(self) -> None:
        """In a forked child: give up what the parent had, without touching it; its locks may be held for ever."""
        # Kept, not freed: gRPC's own clean-up would take locks of threads that do not exist here.
        self._abandoned.extend((self._link, self._publisher, self._ahead, self._reporter))
        self._start_afresh(Notices(self._notices.said()), forked_in_call=self._link.busy)


def program_name() -> str:
    """Return how this program is called, as `python -m NAME` or the script's file name; never a path."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and isinstance(spec.name, str):
        return spec.name.removesuffix(".__main__")[:MAX_NAME_TEXT]
    return os.path.basename(sys.argv[0] if sys.argv else "")[:MAX_NAME_TEXT]


def _after_fork(this: weakref.ref[DaemonClient]) -> None:
    client = this()
    if client is not None:
        client._forked()
