"""Taking in what trainers report: each graph that was a miss is given its cause, then kept and counted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from compiler_daemon import metrics
from compiler_daemon.errors import RunLogError
from compiler_daemon.insight.explain.reading import is_readable
from compiler_daemon.insight.runs import GraphRecord, RunLog, RunReport
from compiler_daemon.insight.runs.records import Cause
from compiler_daemon.jobs import Job
from compiler_daemon.store import Store, StoredGraph

logger = logging.getLogger(__name__)

_SLACK_S = 0.5
"""A request this much older than the question for it was there before; younger, it may be the question's own."""


class RunIntake:
    """Takes the reports that trainers send of their runs."""

    def __init__(
        self,
        log: RunLog,
        store: Store,
        *,
        reading: Executor,
        counters: metrics.Counters,
        on_report: Callable[[RunReport], None] | None = None,
    ) -> None:
        """`reading` is for whoever reads graphs, one at a time; `on_report` hears of each report that is kept."""
        self._on_report = on_report
        self._log = log
        self._store = store
        self._reading = reading
        self._counters = counters

    async def add(self, report: RunReport) -> None:
        """Keep a report; raise `RunLogError` where that fails."""
        await asyncio.to_thread(self._add, report)
        if self._on_report is not None:
            self._on_report(report)

    async def keep_refused(self, job: Job) -> None:
        """Keep the graph of a refused request, for `explain`; one that cannot be read, or not here, explains nothing.

        A disk that cannot take it costs an explanation only.
        """
        try:
            if await asyncio.get_running_loop().run_in_executor(self._reading, is_readable, job.graph):
                keep = self._log.keep_refused
                await asyncio.to_thread(keep, job.environment, job.key, job.graph, program=job.program)
        except RunLogError as error:
            logger.warning("the refused graph of key %s is not kept: %s", job.key[:16], error)

    def _add(self, report: RunReport) -> None:
        missed = {graph.key for graph in report.graphs if graph.missed and graph.key}
        known = {key: self._store.graphs(key=key) for key in missed}
        graphs = tuple(
            replace(graph, cause=_cause(graph, report.environment, known)) if graph.missed and graph.key else graph
            for graph in report.graphs
        )
        new = self._log.add(replace(report, graphs=graphs))
        self._counters.add(metrics.GRAPHS_REPORTED, len(new))
        for graph in new:
            if graph.cause:
                self._counters.add(f"{metrics.GRAPHS_MISSED}.{graph.cause}")


def _cause(graph: GraphRecord, environment: str, known: Mapping[str, Sequence[StoredGraph]]) -> Cause:
    if graph.tried:
        return "guards"
    before = [row for row in known.get(graph.key, ()) if row.created < graph.asked - _SLACK_S]
    if any(row.environment == environment for row in before):
        return "gone"
    return "environment" if before else "new"
