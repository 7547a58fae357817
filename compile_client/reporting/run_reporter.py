"""The process's record on its way to the daemon, and the daemon's explanation on its way back: quietly, both of them.

Nothing here is counted as a failure or logged: a training that cannot report is a training like any other.
"""

from __future__ import annotations

from compile_client.config import ClientConfig
from compile_client.errors import ReadOnlyError, RefusedError
from compile_client.log import logger
from compile_client.reporting.explanation import explanation_lines
from compile_client.reporting.process_report import ProcessReport
from compile_client.reporting.run_queue import RunQueue
from compile_client.transport.deadline import Deadline
from compile_client.transport.reconnect import ReconnectingChannel
from compile_client.transport.records import ExplainedGraph, GraphNote, RunPart
from compile_wire.kernel.environment import ArtifactKind, kernels_run


class RunReporter:
    """Sends the record of this process's run to the daemon. Safe to call from any thread; no method raises."""

    def __init__(
        self, config: ClientConfig, channel: ReconnectingChannel, report: ProcessReport, kind: ArtifactKind
    ) -> None:
        """Cheap. A process's kernels have a record of their own, whose name follows from that of its graphs."""
        self._config = config
        self._channel = channel
        self._kind = kind
        run = kernels_run(report.run) if kind == "kernel" else report.run
        self._queue = RunQueue(self._send, report.counters.fallbacks, run=run)

    def note(self, graph: GraphNote) -> None:
        """Remember what became of a graph; the daemon is told in the background."""
        self._queue.note(graph)

    def finish(self, timeout_s: float) -> list[str]:
        """Send what is left, within `timeout_s`; return the explanation's lines where the user asked for one."""
        self._queue.finish(min(self._config.answer_s, timeout_s))
        if not self._config.explain or not (missed := self._queue.missed()):
            return []
        graphs: list[ExplainedGraph] | None = None
        try:
            deadline = Deadline(self._config.explain_s)
            with self._channel.exchange_if_connected() as connection:
                graphs = connection.explain_run(deadline, self._queue.run) if connection is not None else None
            graphs = [graph for graph in graphs if graph.kind == self._kind] if graphs is not None else None
        except Exception as error:  # noqa: BLE001 - the class's promise
            logger.debug("the daemon did not explain: %s", error)
        return list(explanation_lines(missed, graphs, self._kind))

    def _send(self, part: RunPart, timeout_s: float) -> bool | None:
        """Hand in a piece of the record over the connection that is open; see `RunQueue`."""
        try:
            deadline = Deadline(min(timeout_s, self._config.answer_s))
            with self._channel.exchange_if_connected() as connection:
                return connection is not None and connection.report_run(deadline, part)
        except (RefusedError, ReadOnlyError):  # a daemon that knows no reports, or wants none of ours
            return None
        except Exception as error:  # noqa: BLE001 - the class's promise
            logger.debug("the run's record was not sent: %s", error)
            return False
