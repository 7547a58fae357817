"""What a tier that hangs costs lookups that this node can answer itself: two daemons, asked in turn."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc

from benches.harness.daemon import OPTIONS, ServedDaemon
from benches.harness.published import publish
from benches.harness.synthetic import ENVIRONMENT, Catalogue
from compile_wire.environment import environment_id
from compile_wire.v1 import compiler_daemon_pb2 as pb
from compile_wire.v1 import compiler_daemon_pb2_grpc as pb_grpc
from compiler_daemon.admin.keys import signers
from tests.fleet_suite.row import Finding, Row, unplayed
from tests.fleet_suite.stage import Stage, missing, tier_of

_BLOCKS, _EACH = 120, 50
_CATALOGUE = Catalogue(name="hit", keys=8, min_bytes=250_000, max_bytes=251_000, shared=0)
_MOST = 1.1
_LATER_S, _FIRST_S = 0.005, 0.35


@dataclass
class _Asker:
    """A connection to one daemon, and how long its answers took."""

    channel: grpc.Channel
    metadata: tuple[tuple[str, str], ...]
    hits: list[float] = field(default_factory=list)
    misses: list[float] = field(default_factory=list)

    def ask(self, key: str) -> tuple[float, bool]:
        """Look a key up; return the seconds and whether it was there."""
        request = pb.LookupArtifactRequest(environment_id=environment_id(ENVIRONMENT), key=key)
        began = time.perf_counter()
        answer = pb_grpc.CompileServiceStub(self.channel).LookupArtifact(request, metadata=self.metadata, timeout=10)
        return time.perf_counter() - began, bool(answer.entries)


def local_hits(stage: Stage) -> Iterator[Row]:
    """Yield one row."""
    promise = (
        "Lookups of 250 KB that a node has, while its tier (a Redis) is stopped, beside those of a node without one, "
        f"in turn over real connections: p99 at most {_MOST} times as long; what neither has: the first miss at most "
        f"{_FIRST_S * 1000:.0f} ms later, then {_LATER_S * 1000:.0f} ms (medians)"
    )
    if why := missing("redis"):
        yield unplayed("stopped", promise, why)
        return
    folder = stage.new_folder()
    with tier_of("redis") as tier:
        daemons = {"plain": ServedDaemon(folder / "p"), "tier": ServedDaemon(folder / "t", "--tier", tier.address)}
        signers.init(daemons["tier"].directory, "t-1")
        started: list[ServedDaemon] = []
        try:
            for daemon in daemons.values():
                daemon.start()
                started.append(daemon)
                publish(daemon, _CATALOGUE)
            os.kill(tier.pid, signal.SIGSTOP)
            try:
                finding = _compared(daemons)
            finally:
                os.kill(tier.pid, signal.SIGCONT)
        finally:
            for daemon in started:
                daemon.stop()
    yield Row(name="stopped", promise=promise, found=finding.text, passed=finding.passed, workers="none")


def _compared(daemons: dict[str, ServedDaemon]) -> Finding:
    askers = {
        name: _Asker(grpc.insecure_channel(daemon.address, options=OPTIONS), daemon.metadata)
        for name, daemon in daemons.items()
    }
    finding = Finding()
    firsts = {name: asker.ask("first-miss")[0] for name, asker in askers.items()}
    for block in range(_BLOCKS):
        # Who is first changes from block to block: a machine that is slow for a moment is slow for both.
        for name in sorted(askers, reverse=bool(block % 2)):
            asker = askers[name]
            asker.misses.append(asker.ask(f"miss-{block}")[0])
            for number in range(_EACH):
                seconds, found = asker.ask(_CATALOGUE.key(number % _CATALOGUE.keys))
                assert found, f"{name}: an artifact that was published is not there"
                asker.hits.append(seconds)
    for asker in askers.values():
        asker.channel.close()
    p99 = {name: statistics.quantiles(asker.hits, n=100)[98] for name, asker in askers.items()}
    middle = {name: statistics.median(asker.hits) for name, asker in askers.items()}
    ratio = p99["tier"] / p99["plain"]
    finding.check(ratio <= _MOST, f"p99 {p99['tier'] * 1000:.2f} ms beside {p99['plain'] * 1000:.2f} ms: {ratio:.3f}")
    finding.note(f"p50 {middle['tier'] * 1000:.2f} ms beside {middle['plain'] * 1000:.2f} ms")
    finding.note(f"{len(askers['tier'].hits)} lookups each")
    later = firsts["tier"] - firsts["plain"]
    finding.check(later <= _FIRST_S, f"the first miss {later * 1000:.0f} ms later")
    missed = statistics.median(askers["tier"].misses) - statistics.median(askers["plain"].misses)
    finding.check(missed <= _LATER_S, f"later misses {missed * 1000:.2f} ms later")
    late = daemons["tier"].status().counters.get("tier_late", 0)
    finding.check(late, f"`tier_late` {late}")
    return finding
