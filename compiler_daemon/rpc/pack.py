"""The domain's values packed as messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from compile_wire.plain import plain
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compiler_daemon.jobs import Entry, Event, QuarantinedView, QueuedEvent, Refusal, RunningEvent, WorkerView

if TYPE_CHECKING:
    from compiler_daemon.tier.breaker import BreakerView
    from compiler_daemon.tier.tier import TierView


def pack_entries(entries: Iterable[Entry]) -> pb.LookupArtifactResponse:
    """Return artifacts as a lookup's answer."""
    response = pb.LookupArtifactResponse()
    for entry in entries:
        _fill(response.entries.add(), entry)
    return response


def _fill(message: pb.ArtifactEntry, entry: Entry) -> None:
    # Filled in place: a message that is handed to another is copied, blobs and all, at every level.
    message.manifest = entry.manifest
    message.signature = entry.signature
    message.host = entry.host
    for digest, data in entry.blobs.items():
        message.blobs.add(sha256=digest, data=data)


def pack_event(event: Event) -> pb.CompileGraphResponse:
    """Return what a waiter hears as a message."""
    match event:
        case QueuedEvent():
            return pb.CompileGraphResponse(queued=pb.Queued(position=event.position))
        case RunningEvent():
            return pb.CompileGraphResponse(
                running=pb.Running(elapsed_s=event.elapsed_s, phase=event.phase, expected_s=event.expected_s)
            )
        case Entry():
            response = pb.CompileGraphResponse()
            response.artifact.SetInParent()
            _fill(response.artifact, event)
            return response
        case Refusal():
            return pb.CompileGraphResponse(
                refused=pb.Refused(
                    reason=pb.Refused.Reason.Value(f"REASON_{event.reason}"),
                    message=event.message,
                    fields=event.fields,
                )
            )


def pack_worker(view: WorkerView) -> pb.WorkerStatus:
    """Return a worker as an operator sees it."""
    return pb.WorkerStatus(
        pid=view.pid,
        environment_id=view.environment,
        state=view.state,
        key=view.key,
        elapsed_s=view.elapsed_s,
        jobs_done=view.jobs_done,
        rss_bytes=view.rss_bytes,
    )


def pack_quarantined(view: QuarantinedView) -> pb.QuarantinedGraph:
    """Return a graph that is refused for a while."""
    return pb.QuarantinedGraph(environment_id=view.environment, key=view.key, reason=view.reason, left_s=view.left_s)


def pack_tier(view: TierView) -> pb.TierStatus:
    """Return a tier as an operator sees it."""
    return pb.TierStatus(
        address=view.address,
        reads=_pack_calls(view.reads),
        writes=_pack_calls(view.writes),
        budget_s=view.budget_s,
        waiting_bytes=view.waiting_bytes,
        counts={name.removeprefix("tier_"): number for name, number in view.counts.items()},
        rejected=view.rejected,
        rejections=[plain(text) for text in view.rejections],
    )


def _pack_calls(view: BreakerView) -> pb.TierCalls:
    return pb.TierCalls(
        state=view.state,
        failures=view.failures,
        pauses=view.opened,
        retry_in_s=view.retry_in_s,
        kind=view.kind,
        reason=plain(view.reason),
    )
