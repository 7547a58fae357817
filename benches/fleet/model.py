"""A fleet in SimPy: trainers on nodes, a daemon on each node, one tier; from a deploy to the last trainer's last graph.

What is modelled is who asks whom, when, and how long that takes: lookups, single flight on the node and over the fleet,
waiting for another's compile with growing pauses, workers, uploads. It is `compiler_daemon.compiles` and
`compiler_daemon.tier` without the bytes; the pauses are theirs.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

from benches.fleet.engine import Engine, EngineModel
from compiler_daemon.tier.leases import LeaseConfig

Steps = Generator[Any, Any, Any]
"""A process of SimPy's."""

_LEASE = LeaseConfig()
_GROWS = 1.5
"""By so much each pause is longer than the one before: leases._waiting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One deploy."""

    nodes: int
    trainers_per_node: int
    graphs: int
    workers: int
    compile_s: float
    worker_start_s: float
    start_s: float
    between_graphs_s: float
    load_s: float
    spread_s: float
    object_bytes: float
    facts_bytes: float
    engine: EngineModel | None
    """None is no tier: each node is for itself."""
    replayed: bool = False
    """Whether all graphs are in the tier when it begins: compiled again the night before."""
    shuffled: bool = False
    """Whether trainers take the graphs in orders of their own."""
    jitter: float = 0.1
    """How far times are from their mean, as a share of it, at most."""
    seed: int = 0


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What a deploy came to."""

    seconds: float = 0.0
    """Until the last trainer had its last graph."""
    trainer_s: float = 0.0
    """What a trainer spent on the average until then."""
    compiles: int = 0
    compile_cpu_s: float = 0.0
    hits: int = 0
    misses: int = 0
    waited: int = 0
    written: int = 0
    requests: int = 0
    reads: int = 0
    writes: int = 0
    bytes: float = 0.0
    peak_per_s: int = 0
    peak_bytes_per_s: int = 0
    peak_work: float = 0.0
    """The share of the busiest second that the tier needed for what was asked for in it."""
    delay_p99_s: float = 0.0
    operations: dict[str, int] = field(default_factory=dict)


class Fleet:
    """Runs one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.env = simpy.Environment()
        self.random = random.Random(plan.seed)  # noqa: S311 - a model is to be repeated
        self.engine = Engine(plan.engine) if plan.engine else None
        self.stored: set[int] = set(range(plan.graphs)) if plan.replayed else set()
        """Graphs in the tier."""
        self.leases: set[int] = set()
        """Graphs that a node compiles."""
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Run it to its end."""
        for _ in range(self.plan.nodes):
            node = _Node(self)
            for _ in range(self.plan.trainers_per_node):
                self.env.process(self._trainer(node))
        self.env.run()
        outcome, engine = self.outcome, self.engine
        trainers = self.plan.nodes * self.plan.trainers_per_node
        outcome.trainer_s /= trainers
        if engine is not None:
            outcome.reads, outcome.writes, outcome.bytes = engine.reads, engine.writes, engine.bytes
            outcome.requests = engine.reads + engine.writes
            outcome.peak_per_s = max(engine.by_second.values(), default=0)
            outcome.peak_bytes_per_s = max(engine.bytes_by_second.values(), default=0)
            outcome.peak_work = max(engine.work_by_second.values(), default=0.0)
            outcome.operations = dict(engine.operations)
            delays = sorted(engine.delays)
            outcome.delay_p99_s = delays[int(len(delays) * 0.99)] if delays else 0.0
        return outcome

    def about(self, seconds: float) -> float:
        """Return a time near this one."""
        return seconds * (1 + self.plan.jitter * (2 * self.random.random() - 1))

    def _trainer(self, node: _Node) -> Steps:
        plan, began = self.plan, self.random.random() * self.plan.spread_s
        yield self.env.timeout(began + self.about(plan.start_s))
        if node.facts is None:
            node.facts = self.env.process(node.ask("facts", plan.facts_bytes))
        yield node.facts
        order = list(range(plan.graphs))
        if plan.shuffled:
            self.random.shuffle(order)
        for graph in order:
            yield self.env.timeout(self.about(plan.between_graphs_s))
            yield self.env.process(node.graph(graph))
            yield self.env.timeout(self.about(plan.load_s))
        self.outcome.seconds = max(self.outcome.seconds, self.env.now)
        self.outcome.trainer_s += self.env.now - began


class _Node:
    """One daemon."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._env = fleet.env
        self._store: set[int] = set()
        self._looks: dict[int, simpy.Process] = {}
        self._flights: dict[int, simpy.Process] = {}
        self._workers = simpy.Resource(self._env, fleet.plan.workers)
        self._warm = 0
        self.facts: simpy.Process | None = None

    def ask(self, operation: Any, size: float = 0) -> Steps:
        """Ask the tier, where there is one."""
        if (engine := self._fleet.engine) is not None:
            yield self._env.timeout(engine.ask(self._env.now, operation, size))

    def graph(self, graph: int) -> Steps:
        """Serve one trainer with one graph: `Cache.lookup`, then `SingleFlight.compile`."""
        if graph in self._store:
            return
        if graph in self._flights:
            if self._fleet.engine is not None:  # its lookup asks before it joins
                yield self._look(graph)
            if graph not in self._store:
                yield self._flight(graph)
            return
        yield self._look(graph)
        if graph not in self._store:
            yield self._flight(graph)

    def _look(self, graph: int) -> simpy.Process:
        """Ask the tier for a graph; of all who ask at once there is one read."""
        if graph not in self._looks:
            self._looks[graph] = self._env.process(self._read(graph))
        return self._looks[graph]

    def _flight(self, graph: int) -> simpy.Process:
        if graph not in self._flights:
            self._flights[graph] = self._env.process(self._fly(graph))
        return self._flights[graph]

    def _read(self, graph: int) -> Steps:
        fleet = self._fleet
        if fleet.engine is not None:
            there = graph in fleet.stored
            yield self._env.process(self.ask("read", fleet.plan.object_bytes if there else 0))
            fleet.outcome.hits += there
            fleet.outcome.misses += not there
            if there:
                self._store.add(graph)
                self._env.process(self.ask("touch"))
        else:
            yield self._env.timeout(0)
        del self._looks[graph]

    def _fly(self, graph: int) -> Steps:
        """Have it compiled here, or wait until another node has: `SingleFlight._attempt`, `Turns.turn`."""
        fleet, wait_s = self._fleet, _LEASE.first_wait_s
        seen = False
        while True:
            yield self._look(graph)
            if graph in self._store:
                break
            with self._workers.request() as worker:
                yield worker
                if self._warm < fleet.plan.workers:
                    self._warm += 1
                    yield self._env.timeout(fleet.about(fleet.plan.worker_start_s))
                free = graph not in fleet.leases
                if free and fleet.engine is not None:
                    fleet.leases.add(graph)
                yield self._env.process(self.ask("take" if free or not seen else "take again"))
                if free:
                    yield self._env.process(self._compile(graph))
                    break
                if not seen:
                    seen = True
                    yield self._env.process(self.ask("look"))
                fleet.outcome.waited += 1
            yield self._env.timeout(wait_s * (0.75 + 0.5 * fleet.random.random()))
            wait_s = min(wait_s * _GROWS, _LEASE.longest_wait_s)
        del self._flights[graph]

    def _compile(self, graph: int) -> Steps:
        fleet = self._fleet
        if fleet.engine is not None:
            yield self._look(graph)  # whoever had the lease before may have finished
        if graph not in self._store:
            seconds = fleet.about(fleet.plan.compile_s)
            end = self._env.now + seconds
            while end - self._env.now > _LEASE.beat_s:
                yield self._env.timeout(_LEASE.beat_s)
                self._env.process(self.ask("renew"))
            yield self._env.timeout(max(0.0, end - self._env.now))
            fleet.outcome.compiles += 1
            fleet.outcome.compile_cpu_s += seconds
            if fleet.engine is not None:
                yield self._env.process(self.ask("create", fleet.plan.object_bytes))
                fleet.outcome.written += graph not in fleet.stored
                fleet.stored.add(graph)
            self._store.add(graph)
        yield self._env.process(self.ask("release"))
        fleet.leases.discard(graph)
