"""Messages of RunService to values and back; every bound of what comes in is checked here."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import asdict

from compile_wire.digest import parse_digest
from compile_wire.errors import MalformedError
from compile_wire.limits import MAX_GRAPHS_PER_REPORT, MAX_KEY_TEXT, MAX_MESSAGE_TEXT, MAX_REASON_TEXT, MAX_REASONS
from compile_wire.plain import plain
from compile_wire.v1 import runs_pb2 as pb
from compiler_daemon.insight.explanations import Explained, Explanation
from compiler_daemon.insight.runs import GraphRecord, Outcome, ProgramFigures, RunReport, RunSummary
from compiler_daemon.insight.statistics import Statistics
from compiler_daemon.jobs import FlightView
from compiler_daemon.rpc.unpack import unpack_name, unpack_program
from compiler_daemon.store import ArtifactRow

_RUN = re.compile(r"[0-9a-f]{32}")
_WORD = re.compile(r"[a-z0-9_]+")
_LONGEST_S = 10 * 365 * 24 * 3600.0

_OUTCOMES: Mapping[pb.GraphOutcome.ValueType, Outcome] = {
    pb.GRAPH_OUTCOME_HIT_LOCAL: "hit_local",
    pb.GRAPH_OUTCOME_HIT: "hit",
    pb.GRAPH_OUTCOME_COMPILED_BY_DAEMON: "compiled_by_daemon",
    pb.GRAPH_OUTCOME_COMPILED_HERE: "compiled_here",
}
_OUTCOME_VALUES = {name: value for value, name in _OUTCOMES.items()}


def unpack_run(run: str) -> str:
    """Return the name of a run; raise `MalformedError` where it is none."""
    if not _RUN.fullmatch(run):
        raise MalformedError("a run is named by 32 hex digits")
    return run


def unpack_prefix(key: str) -> str:
    """Return the beginning of a key; raise `MalformedError` where it is longer than a key."""
    if len(key) > MAX_KEY_TEXT:
        raise MalformedError(f"a key has at most {MAX_KEY_TEXT} characters, not {len(key)}")
    return unpack_name(key, "a key")


def unpack_report(request: pb.ReportRunRequest) -> RunReport:
    """Return what a trainer reports of its run; raise `MalformedError` where it breaks a bound."""
    if len(request.graphs) > MAX_GRAPHS_PER_REPORT:
        raise MalformedError(f"a report has at most {MAX_GRAPHS_PER_REPORT} graphs, not {len(request.graphs)}")
    if len(request.fallbacks) > MAX_REASONS:
        raise MalformedError(f"a report has at most {MAX_REASONS} reasons, not {len(request.fallbacks)}")
    now = time.time()
    return RunReport(
        run=unpack_run(request.run),
        program=unpack_program(request.program),
        pid=request.pid,
        environment=parse_digest(request.environment_id),
        started=now - _seconds(request.age_s),
        graphs=tuple(_graph(graph, now) for graph in request.graphs),
        fallbacks={_reason(name): count for name, count in request.fallbacks.items()},
        unreported=request.unreported,
        ended=request.ended,
    )


def _graph(graph: pb.GraphReport, now: float) -> GraphRecord:
    if graph.outcome not in _OUTCOMES:
        raise MalformedError("a graph's outcome is none of those known here")
    if len(graph.message) > MAX_MESSAGE_TEXT:
        raise MalformedError(f"a message has at most {MAX_MESSAGE_TEXT} characters, not {len(graph.message)}")
    return GraphRecord(
        number=graph.number,
        key=unpack_prefix(graph.key),
        outcome=_OUTCOMES[graph.outcome],
        reason=_reason(graph.reason) if graph.reason else "",
        message=plain(graph.message),
        tried=graph.tried,
        waited_s=_seconds(graph.waited_s),
        saved_s=_seconds(graph.saved_s),
        spent_s=_seconds(graph.spent_s),
        graph=parse_digest(graph.graph_sha256) if graph.graph_sha256 else "",
        asked=now - _seconds(graph.age_s),
    )


def _reason(text: str) -> str:
    if len(text) > MAX_REASON_TEXT or not _WORD.fullmatch(text):
        raise MalformedError(f"a reason is one word of at most {MAX_REASON_TEXT} characters")
    return text


def _seconds(value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= _LONGEST_S):
        raise MalformedError("a time is a number of seconds")
    return value


def pack_explained(explained: Explained) -> pb.ExplainRunResponse:
    """Return an explanation as a message."""
    return pb.ExplainRunResponse(
        run=pack_run(explained.run) if explained.run is not None else None,
        graphs=[_pack_explanation(item) for item in explained.graphs],
        more=explained.more,
        kernels=pack_run(explained.kernels) if explained.kernels is not None else None,
    )


def _pack_explanation(item: Explanation) -> pb.GraphExplanation:
    graph, nearest = item.graph, item.nearest
    return pb.GraphExplanation(
        number=graph.number,
        kind=item.kind,
        name=item.name,
        key=graph.key,
        program=item.program,
        outcome=_OUTCOME_VALUES[graph.outcome],
        reason=graph.reason,
        message=graph.message,
        cause=graph.cause,
        sentence=item.sentence,
        nearest=pb.NearestRequest(
            key=nearest.candidate.key,
            program=nearest.candidate.program,
            environment_id=nearest.candidate.environment,
            created=nearest.candidate.created,
            related=nearest.related,
        )
        if nearest is not None
        else None,
        differences=[pb.GraphDifference(kind=told.kind, text=told.text) for told in item.differences],
        more=item.more,
        waited_s=graph.waited_s,
        spent_s=graph.spent_s,
    )


def pack_run(run: RunSummary) -> pb.RunSummary:
    """Return a run as a message."""
    return pb.RunSummary(
        run=run.run,
        program=run.program,
        pid=run.pid,
        environment_id=run.environment,
        started=run.started,
        seen=run.seen,
        ended=run.ended,
        hits_local=run.outcomes.get("hit_local", 0),
        hits=run.outcomes.get("hit", 0),
        compiled_by_daemon=run.outcomes.get("compiled_by_daemon", 0),
        compiled_here=run.outcomes.get("compiled_here", 0),
        unreported=run.unreported,
        fallbacks=run.fallbacks,
        seconds_waited=run.waited_s,
        seconds_saved=run.saved_s,
        seconds_spent=run.spent_s,
    )


def pack_statistics(now: Statistics) -> pb.GetStatisticsResponse:
    """Return the figures as a message."""
    return pb.GetStatisticsResponse(
        hits=now.hits,
        misses=now.misses,
        merged=now.merged,
        compiled=now.compiled,
        published=now.published,
        seconds_saved=now.seconds_saved,
        seconds_spent=now.seconds_spent,
        seconds_spent_here=now.seconds_spent_here,
        misses_by_reason=now.misses_by_reason,
        here_by_reason=now.here_by_reason,
        fallbacks_by_reason=now.fallbacks_by_reason,
        refused_by_reason=now.refused_by_reason,
        runs=now.runs,
        artifacts=now.artifacts,
        store_bytes=now.store_bytes,
        store_max_bytes=now.store_max_bytes,
        slowest=[_pack_slow(row) for row in now.slowest],
        programs=[_pack_program(program) for program in now.programs],
        last_runs=[pack_run(run) for run in now.last_runs],
        tiers=pb.TierStatistics(**asdict(now.tiers)) if now.tiers is not None else None,
    )


def _pack_slow(row: ArtifactRow) -> pb.SlowGraph:
    return pb.SlowGraph(
        key=row.key,
        program=row.program,
        environment_id=row.environment,
        compile_s=row.compile_s,
        origin=row.origin,
        hits=row.hits,
        bytes=row.bytes,
    )


def _pack_program(program: ProgramFigures) -> pb.ProgramStatistics:
    return pb.ProgramStatistics(
        program=program.program,
        runs=program.runs,
        hits_local=program.outcomes.get("hit_local", 0),
        hits=program.outcomes.get("hit", 0),
        compiled_by_daemon=program.outcomes.get("compiled_by_daemon", 0),
        compiled_here=program.outcomes.get("compiled_here", 0),
        seconds_waited=program.waited_s,
        seconds_saved=program.saved_s,
        seconds_spent=program.spent_s,
        seen=program.seen,
        misses=program.misses,
        here=program.here,
        fallbacks=program.fallbacks,
    )


def pack_flight(view: FlightView) -> pb.FlightStatus:
    """Return a compile as an operator sees it."""
    return pb.FlightStatus(
        key=view.key,
        program=view.program,
        environment_id=view.environment,
        phase=view.phase,
        position=view.position,
        waited_s=view.waited_s,
        elapsed_s=view.elapsed_s,
        expected_s=view.expected_s,
        eta_s=view.eta_s,
        waiters=view.waiters,
    )
