"""Why the graphs and kernels of a run were misses: the cause of each, and its difference from the nearest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from compile_wire.digest import Digest
from compile_wire.graph.spec import GraphSpec
from compile_wire.kernel.environment import ArtifactKind, is_kernel_environment, kernels_run, kind_of
from compile_wire.kernel.spec import KernelSpec
from compiler_daemon.compiles.environments import Environments
from compiler_daemon.errors import AmbiguousKeyError, RunUnknownError
from compiler_daemon.insight.explain import (
    Candidate,
    Difference,
    KernelRequest,
    Nearest,
    Request,
    differences,
    find_nearest,
    find_nearest_kernel,
)
from compiler_daemon.insight.explain.reading import read_graph, read_kernel
from compiler_daemon.insight.runs import GraphRecord, RunLog, RunSummary
from compiler_daemon.store import Store, StoredGraph, StoreError

Fields = Mapping[Digest, Mapping[str, str]]
"""Environments by their id."""

_MAX_GRAPHS = 64
_MAX_DIFFERENCES = 8
_TIME_S = 4.0
"""For the nearest requests of all graphs of an answer: reading graphs takes a core from the compiles."""

_SENTENCES = {
    "new": "never seen before",
    "environment": "known, but only for another environment",
    "guards": "artifacts are stored under this key, but the guards of none held",
    "gone": "it was there once, but its artifact is no longer stored: evicted, removed or found damaged",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Says why one graph was a miss."""

    graph: GraphRecord
    kind: ArtifactKind
    name: str
    """A kernel's, where it is known."""
    program: str
    sentence: str
    nearest: Nearest | None
    differences: Sequence[Difference]
    more: int
    """Differences that were left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """Holds the answer to one question: the explained graphs of a run, or of a key that belongs to none."""

    run: RunSummary | None
    graphs: Sequence[Explanation]
    """And kernels, after them."""
    more: int
    """Those that were left out."""
    kernels: RunSummary | None = None
    """What the same process told of its kernels."""


class Explanations:
    """Asks the log of runs what was missed, and the store what is known."""

    def __init__(self, log: RunLog, store: Store, *, environments: Environments, reading: Executor) -> None:
        """`reading` is for whoever reads graphs: one at a time, for that takes memory, and readers may ask."""
        self._log = log
        self._store = store
        self._environments = environments
        self._reading = reading

    async def of_run(self, run: str = "", *, program: str = "") -> Explained:
        """Explain a run: the one named, else the program's last, else the last; raise `RunUnknownError`."""
        return await asyncio.get_running_loop().run_in_executor(
            self._reading, self._of_run, run, program, self._environments.known()
        )

    async def of_key(self, prefix: str) -> Explained:
        """Explain the last miss of the key that begins like this.

        Raises `RunUnknownError` where there is none, `AmbiguousKeyError` where there are several.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._reading, self._of_key, prefix, self._environments.known()
        )

    # Below: in threads.

    def _of_run(self, run: str, program: str, named: Fields) -> Explained:
        summary = self._log.run(run, program=program)
        if summary is None:
            what = f"run {run}" if run else f"run of {program}" if program else "run"
            raise RunUnknownError(f"no {what} is known: trainers report theirs while TORCH_COMPILE_CLIENT=1")
        search = _Search(self._store, self._log, named, until=time.monotonic() + _TIME_S)
        # A process's graphs and its kernels are two records.
        both = [one for one in (summary, self._log.run(kernels_run(summary.run))) if one is not None]
        both.sort(key=lambda one: search.is_of_kernels(one.environment))
        missed = [(one, graph) for one in both for graph in self._log.graphs(one.run) if graph.missed]
        return Explained(
            run=both[0],
            graphs=[search.explain(graph, one.environment, one.program) for one, graph in missed[:_MAX_GRAPHS]],
            more=max(0, len(missed) - _MAX_GRAPHS),
            kernels=next((one for one in both if search.is_of_kernels(one.environment)), None),
        )

    def _of_key(self, prefix: str, named: Fields) -> Explained:
        requests = [row for row in self._store.graphs() if row.key.startswith(prefix)]
        keys = sorted({*self._log.keys(prefix, 8), *(row.key for row in requests)})
        if not keys:
            raise RunUnknownError(f"no key begins with {prefix}: `compiler-daemon explain` lists those of the last run")
        if len(keys) > 1 and prefix not in keys:
            raise AmbiguousKeyError(f"several keys begin with {prefix}: {', '.join(key[:24] for key in keys[:5])}")
        key = prefix if prefix in keys else keys[0]
        search = _Search(self._store, self._log, named, until=time.monotonic() + _TIME_S)
        last = self._log.last_of_key(key)
        if last is not None and (summary := self._log.run(last[0])) is not None:
            explained = search.explain(last[1], summary.environment, summary.program)
            return Explained(run=summary, graphs=[explained], more=0)
        row = next(row for row in requests if row.key == key)
        graph = GraphRecord(
            number=0, key=key, outcome="compiled_by_daemon", reason="", message="", tried=0, waited_s=0, saved_s=0,
            spent_s=0, graph=row.graph, asked=row.created, cause="new",
        )  # fmt: skip
        return Explained(run=None, graphs=[search.explain(graph, row.environment, row.program)], more=0)


class _Search:
    """Searches for the nearest known requests, for one answer."""

    def __init__(self, store: Store, log: RunLog, named: Fields, *, until: float) -> None:
        self._store = store
        self._log = log
        self._until = until
        self._fields: Fields = {**store.environments(), **named}
        self._requests = store.graphs()
        self._kernels: dict[Digest, KernelSpec | None] = {}

    def is_of_kernels(self, environment: str) -> bool:
        """Return whether this is an environment of kernels."""
        return is_kernel_environment(self._fields.get(Digest(environment), {}))

    def explain(self, graph: GraphRecord, environment: str, program: str) -> Explanation:
        kind = kind_of(graph.key, self._fields.get(Digest(environment), {}))
        spec = self._kernel(Digest(graph.graph)) if kind == "kernel" and graph.graph else None
        found = self._nearest(graph, spec, environment, program) if graph.key and graph.missed else None
        told = found.differences if found else ()
        return Explanation(
            graph=graph,
            kind=kind,
            name=spec.name if spec else "",
            program=program,
            sentence=_sentence(graph, spec, found, in_time=time.monotonic() < self._until),
            nearest=found,
            differences=told[:_MAX_DIFFERENCES],
            more=max(0, len(told) - _MAX_DIFFERENCES),
        )

    def _nearest(self, graph: GraphRecord, kernel: KernelSpec | None, environment: str, program: str) -> Nearest | None:
        if graph.cause in ("gone", "guards"):
            return None  # the cause says it all
        ours = Digest(environment)
        fields = self._fields.get(ours, {})
        if graph.cause == "environment":
            return self._other_environment(graph, fields)
        data = self._data(graph.graph)
        if data is None:
            return None
        of_kernels = self.is_of_kernels(environment)
        # What came after it says nothing about why it missed.
        known = [
            row
            for row in self._requests
            if row.created < graph.asked and row.key != graph.key and self.is_of_kernels(row.environment) == of_kernels
        ]
        if kernel is not None:
            return find_nearest_kernel(
                KernelRequest(environment=fields, spec=kernel),
                [_candidate(row) for row in known],
                program=program,
                size=len(data),
                fields=self._fields,
                read=self._kernel,
            )
        if of_kernels or (spec := read_graph(data)) is None:
            return None
        return find_nearest(
            Request(environment=fields, spec=spec),
            [_candidate(row) for row in known],
            program=program,
            environment=ours,
            size=len(data),
            fields=self._fields,
            read=self._read,
        )

    def _other_environment(self, graph: GraphRecord, fields: Mapping[str, str]) -> Nearest | None:
        """Return, of the environments that the same key is known for, the one that ours differs least from."""
        best: Nearest | None = None
        for row in self._requests:
            if row.key != graph.key or row.created >= graph.asked:
                continue
            others = self._fields.get(row.environment, {})
            told = differences(Request(environment=fields), Request(environment=others))
            if told and (best is None or len(told) < len(best.differences)):
                best = Nearest(candidate=_candidate(row), differences=told, related=True)
        return best

    def _data(self, digest: str) -> bytes | None:
        if not digest:
            return None
        try:
            data = self._store.get_graph(Digest(digest))
        except StoreError:
            return self._log.refused_graph(digest)
        return data

    def _read(self, digest: Digest) -> GraphSpec | None:
        if time.monotonic() >= self._until:
            return None
        data = self._data(digest)
        return read_graph(data) if data is not None else None

    def _kernel(self, digest: Digest) -> KernelSpec | None:
        if digest not in self._kernels and time.monotonic() < self._until:
            data = self._data(digest)
            self._kernels[digest] = read_kernel(data) if data is not None else None
        return self._kernels.get(digest)


def _candidate(row: StoredGraph) -> Candidate:
    return Candidate(
        environment=row.environment,
        key=row.key,
        graph=row.graph,
        program=row.program,
        bytes=row.bytes,
        created=row.created,
    )


def _sentence(graph: GraphRecord, kernel: KernelSpec | None, found: Nearest | None, *, in_time: bool) -> str:
    if not graph.missed:
        return "it was there"
    if not graph.key:
        return "torch has no key for it, so that the store cannot be asked"
    sentence = _SENTENCES.get(graph.cause, "the daemon was not asked")
    if graph.cause != "new":
        return sentence
    if not graph.graph:
        return f"{sentence}; it could not be captured, so that nothing can be compared"
    if found is None and kernel is not None and in_time:
        return f"{sentence}, and no other kernel called {kernel.name} is known"
    if found is None:
        return f"{sentence}, and there is no earlier request to compare it with" if in_time else sentence
    if not found.related:
        return f"{sentence}; even the nearest known request has little in common with it"
    if not found.differences:
        return f"{sentence}; in all that is known it is the same as the nearest request, only the key differs"
    return f"{sentence}; the nearest known request differs in"
