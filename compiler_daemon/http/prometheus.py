"""The daemon's counters and state as Prometheus reads them.

Nothing is counted twice: a collector turns what the daemon knows anyway into samples when it is asked. A counter that
has no name below is exposed all the same, as `compile_daemon_events_total`. docs/metrics.md is the table for people.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from compiler_daemon import metrics
from compiler_daemon.insight.status import StatusView

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_PREFIX = "compile_daemon_"


@dataclass(frozen=True, slots=True)
class _Family:
    """A counter of Prometheus', and which of our counters are its samples, by the value of its one label."""

    name: str
    help: str
    label: str
    samples: dict[str, str]


_FAMILIES = (
    _Family("lookups", "Lookups by result.", "result", {"hit": metrics.LOOKUP_HITS, "miss": metrics.LOOKUP_MISSES}),
    _Family(
        "lookup_hits_replayed",
        "Of the lookups that hit: served by an artifact that `replay` had made.",
        "",
        {"": metrics.LOOKUP_HITS_REPLAYED},
    ),
    _Family("graphs_replayed", "Kept graphs that `replay` had compiled again.", "", {"": metrics.GRAPHS_REPLAYED}),
    _Family("saved_seconds", "Compile seconds of the artifacts that lookups found.", "", {"": metrics.SECONDS_SAVED}),
    _Family(
        "compile_seconds",
        "Seconds that workers compiled, of compiles that ended well.",
        "",
        {"": metrics.COMPILE_SECONDS},
    ),
    _Family("compiles_requested", "Compiles asked for.", "", {"": metrics.COMPILES_ASKED}),
    _Family(
        "compiles",
        "Compiles asked for that were not refused: joined one under way, found stored by then, done, failed.",
        "outcome",
        {
            "joined": metrics.COMPILES_JOINED,
            "found": metrics.COMPILES_FOUND,
            "done": metrics.COMPILES_DONE,
            "failed": metrics.COMPILES_FAILED,
        },
    ),
    _Family("compiles_started", "Compiles given to a worker.", "", {"": metrics.COMPILES_STARTED}),
    _Family(
        "artifacts_published", "Artifacts that trainers compiled and handed in.", "", {"": metrics.ARTIFACTS_PUBLISHED}
    ),
    _Family(
        "artifacts_disputed",
        "Artifacts in quarantine because a trainer's own compile made other code.",
        "",
        {"": metrics.ARTIFACTS_DISPUTED},
    ),
    _Family(
        "blobs",
        "Blobs carried, by direction.",
        "direction",
        {"read": metrics.BLOBS_READ, "written": metrics.BLOBS_WRITTEN},
    ),
    _Family("handshakes", "Processes that said hello.", "", {"": metrics.HANDSHAKES}),
    _Family("handshakes_refused", "Of these, turned away.", "", {"": metrics.HANDSHAKES_REFUSED}),
    _Family("unauthenticated", "Calls of nobody known.", "", {"": metrics.UNAUTHENTICATED}),
    _Family("forbidden", "Calls that the role of the caller does not allow.", "", {"": metrics.FORBIDDEN}),
    _Family(
        "entries_unusable", "Artifacts that were stored and could not be used.", "", {"": metrics.ENTRIES_UNUSABLE}
    ),
    _Family(
        "graphs_quarantined",
        "Graphs refused for a while because they killed workers.",
        "",
        {"": metrics.GRAPHS_QUARANTINED},
    ),
    _Family(
        "workers_ended",
        "Workers by failure: failed to start, lost during a job, over a limit.",
        "trouble",
        {"failed": metrics.WORKERS_FAILED, "lost": metrics.WORKERS_LOST, "over_limit": metrics.WORKERS_OVER_LIMIT},
    ),
    _Family("workers_started", "Workers that came up.", "", {"": metrics.WORKERS_STARTED}),
    _Family(
        "tier_compiles",
        "Compiles that another node had, too: it did them for this one, both did, or it was refused for both.",
        "outcome",
        {"merged": metrics.TIER_MERGED, "duplicate": metrics.TIER_DUPLICATES, "refused": metrics.TIER_REFUSED},
    ),
    _Family("files_quarantined", "Damaged files of the store that were set aside.", "", {"": "quarantined"}),
)
_BY_PART = (
    (metrics.COMPILES_REFUSED, "compiles_refused", "Compiles refused, by reason; the trainer compiled.", "reason"),
    (metrics.GRAPHS_MISSED, "graphs_missed", "Graphs that were not there, by cause, as trainers report it.", "cause"),
)
"""Counters of ours that only or also exist as `name.part`."""
_TIER_FAMILIES = (
    _Family(
        "tier_lookups",
        "Lookups in a tier by result; late are those that were not waited for.",
        "result",
        {"hit": metrics.TIER_HITS, "miss": metrics.TIER_MISSES, "late": metrics.TIER_LATE},
    ),
    _Family(
        "tier_artifacts",
        "Artifacts on their way into a tier: written, dropped because too many waited, given up for another node's.",
        "outcome",
        {"written": metrics.TIER_WRITTEN, "dropped": metrics.TIER_DROPPED, "adopted": metrics.TIER_ADOPTED},
    ),
    _Family(
        "tier_bytes",
        "Bytes of objects, by direction.",
        "direction",
        {"read": metrics.TIER_BYTES_READ, "written": metrics.TIER_BYTES_WRITTEN},
    ),
    _Family("tier_failed", "Calls that a tier did not do.", "", {"": metrics.TIER_FAILED}),
    _Family("tier_waited", "Questions for a lease that another node had.", "", {"": metrics.TIER_WAITED}),
)
"""Of each tier, since the daemon started; the label `tier` is its address."""
_NOT_EVENTS = {metrics.LOOKUPS, metrics.COMPILES_REFUSED, *metrics.OF_ONE_TIER}
"""Sums of others."""
_PARTS_OF_ONE_TIER = f"{metrics.TIER_REJECTED}."


def expose(view: StatusView, *, version: str) -> bytes:
    """Return everything in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StatusCollector(view, version))
    return generate_latest(registry)


def families() -> list[Metric]:
    """Return every family without a daemon: its name, kind and text, for documents and tests."""
    nothing = StatusView(
        pid=0,
        uptime_s=0,
        address="",
        directory="",
        draining=False,
        workers=(),
        queued=0,
        artifacts=0,
        blobs=0,
        store_bytes=0,
        store_max_bytes=1,
        rss_bytes=0,
        counters={},
        quarantined=(),
        sandbox="",
    )
    return list(_StatusCollector(nothing, "").collect())


class _StatusCollector(Collector):
    def __init__(self, view: StatusView, version: str) -> None:
        self._view = view
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Yield every family; those without a sample, too."""
        counters = self._view.counters
        named = set(_NOT_EVENTS)
        for family in _FAMILIES:
            metric = CounterMetricFamily(
                _PREFIX + family.name, family.help, labels=[family.label] if family.label else []
            )
            for label, counter in family.samples.items():
                named.add(counter)
                metric.add_metric([label] if family.label else [], counters.get(counter, 0))
            yield metric
        for prefix, name, text, label in _BY_PART:
            yield _labelled(CounterMetricFamily(_PREFIX + name, text, labels=[label]), _parts(counters, prefix))
        rest = {
            name: number
            for name, number in counters.items()
            if name not in named
            and not name.startswith(_PARTS_OF_ONE_TIER)
            and not any(name.startswith(f"{prefix}.") for prefix, *_ in _BY_PART)
        }
        yield _labelled(
            CounterMetricFamily(f"{_PREFIX}events", "Counters that have no metric of their own.", labels=["event"]),
            rest,
        )
        yield from self._tiers()
        yield from self._gauges()

    def _tiers(self) -> Iterator[Metric]:
        # A series may be there once, whoever has named a tier twice.
        tiers = {tier.address: tier for tier in self._view.tiers}.values()
        for family in _TIER_FAMILIES:
            labels = ["tier", family.label] if family.label else ["tier"]
            metric = CounterMetricFamily(_PREFIX + family.name, family.help, labels=labels)
            for tier in tiers:
                for label, counter in family.samples.items():
                    values = [tier.address, label] if family.label else [tier.address]
                    metric.add_metric(values, tier.counts.get(counter, 0))
            yield metric
        rejected = CounterMetricFamily(
            f"{_PREFIX}tier_rejected", "Objects of a tier that were of no use, by reason.", labels=["tier", "reason"]
        )
        pauses = CounterMetricFamily(
            f"{_PREFIX}tier_pauses",
            "How often a tier was left alone for a while, after failures, by kind of call.",
            labels=["tier", "calls"],
        )
        paused = GaugeMetricFamily(
            f"{_PREFIX}tier_paused", "1 while a tier is left alone, by kind of call.", labels=["tier", "calls"]
        )
        budget = GaugeMetricFamily(f"{_PREFIX}tier_budget_seconds", "How long a lookup waits.", labels=["tier"])
        waiting = GaugeMetricFamily(
            f"{_PREFIX}tier_waiting_bytes", "Bytes of objects that are to be written.", labels=["tier"]
        )
        for tier in tiers:
            for reason, number in tier.rejected.items():
                rejected.add_metric([tier.address, reason], number)
            for calls, breaker in (("reads", tier.reads), ("writes", tier.writes)):
                pauses.add_metric([tier.address, calls], breaker.opened)
                paused.add_metric([tier.address, calls], int(breaker.state != "closed"))
            budget.add_metric([tier.address], tier.budget_s)
            waiting.add_metric([tier.address], tier.waiting_bytes)
        yield from (rejected, pauses, paused, budget, waiting)

    def _gauges(self) -> Iterator[Metric]:
        view = self._view
        yield _labelled(
            GaugeMetricFamily(f"{_PREFIX}build_info", "1, with the daemon's version.", labels=["version"]),
            {self._version: 1},
        )
        states = Counter(worker.state for worker in view.workers)
        yield _labelled(
            GaugeMetricFamily(f"{_PREFIX}workers", "Worker processes by state.", labels=["state"]),
            {state: states[state] for state in ("starting", "idle", "busy")},
        )
        for name, text, value in (
            (
                "workers_resident_bytes",
                "Memory of all workers and their children.",
                sum(w.rss_bytes for w in view.workers),
            ),
            ("queued_graphs", "Graphs that wait for a worker.", view.queued),
            ("refused_graphs", "Graphs refused now because they killed workers.", len(view.quarantined)),
            ("store_bytes", "Bytes of the store's artifacts.", view.store_bytes),
            ("store_limit_bytes", "The store's quota.", view.store_max_bytes),
            ("store_artifacts", "Artifacts in the store.", view.artifacts),
            ("store_blobs", "Files in the store.", view.blobs),
            ("resident_bytes", "Memory of the daemon itself.", view.rss_bytes),
            ("start_time_seconds", "When the daemon started, since the epoch.", round(time.time() - view.uptime_s)),
            ("draining", "1 while the daemon stops.", int(view.draining)),
        ):
            yield GaugeMetricFamily(_PREFIX + name, text, value=value)


def _parts(counters: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {
        name.removeprefix(f"{prefix}."): number for name, number in counters.items() if name.startswith(f"{prefix}.")
    }


def _labelled(metric: CounterMetricFamily | GaugeMetricFamily, samples: dict[str, int]) -> Metric:
    for label, number in sorted(samples.items()):
        metric.add_metric([label], number)
    return metric
