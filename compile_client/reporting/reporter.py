"""The process's record on its way to the daemon, and the daemon's explanation on its way back: quietly, both of them.

Nothing here is counted as trouble or said aloud: a training that cannot report is a training like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from compile_client.config import ClientConfig
from compile_client.errors import ReadOnlyError, RefusedError
from compile_client.log import logger
from compile_client.reporting.explanation import explanation_lines
from compile_client.reporting.run_log import RunLog
from compile_client.transport.deadline import Deadline
from compile_client.transport.reconnect import Link
from compile_client.transport.records import ExplainedGraph, GraphNote, RunPart
from compile_wire.kernel.environment import ArtifactKind, kernels_run


class Reporter:
    """Sends the record of this process's run to the daemon. Safe to call from any thread; no method raises."""

    def __init__(
        self,
        config: ClientConfig,
        link: Link,
        fallbacks: Callable[[], Mapping[str, int]],
        *,
        elder: Reporter | None = None,
    ) -> None:
        """Cheap. `fallbacks` gives the kinds of trouble so far, and how often each.

        With an `elder` this is the record of the same process's kernels.
        """
        self._config = config
        self._link = link
        self._kind: ArtifactKind = "kernel" if elder else "graph"
        self._log = RunLog(self._send, fallbacks, run=kernels_run(elder.run) if elder else "")

    @property
    def run(self) -> str:
        """The record's name."""
        return self._log.run

    def note(self, graph: GraphNote) -> None:
        """Remember what became of a graph; the daemon is told in the background."""
        self._log.note(graph)

    def finish(self, timeout_s: float) -> list[str]:
        """Send what is left, within `timeout_s`; return the explanation's lines where the user asked for one."""
        self._log.finish(min(self._config.answer_s, timeout_s))
        if not self._config.explain or not (missed := self._log.missed()):
            return []
        graphs: list[ExplainedGraph] | None = None
        try:
            deadline = Deadline(self._config.explain_s)
            graphs = self._link.quietly(lambda connection: connection.explain_run(self._log.run, deadline))
            graphs = [graph for graph in graphs if graph.kind == self._kind] if graphs is not None else None
        except Exception as error:  # noqa: BLE001 - the class's promise
            logger.debug("the daemon did not explain: %s", error)
        return list(explanation_lines(missed, graphs, self._kind))

    def _send(self, part: RunPart, timeout_s: float) -> bool | None:
        """Hand in a piece of the record over the connection that is open; see `RunLog`."""
        try:
            deadline = Deadline(min(timeout_s, self._config.answer_s))
            sent = self._link.quietly(lambda connection: connection.report_run(part, deadline))
        except (RefusedError, ReadOnlyError):  # a daemon that knows no reports, or wants none of ours
            return None
        except Exception as error:  # noqa: BLE001 - the class's promise
            logger.debug("the run's record was not sent: %s", error)
            return False
        return sent is not None
