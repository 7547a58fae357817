"""Which functions of this process are not traced: looked up, fitted, verified, and recorded where they were traced.

torch is about to trace a function (`serve`). The daemon is asked for traces under the function's key, once a process;
the first one that fits the frame takes the place of tracing. Where none does, torch traces as always, and what comes of
it is recorded (`record`) and published in the background (`finish`).
"""

# torch's internals are partly invisible to a type checker.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch._dynamo import eval_frame
from torch._dynamo.utils import dynamo_timed, get_metrics_context

from compile_client.errors import InternalError, MalformedAnswerError, MismatchError
from compile_client.graphs.verification import Sampling
from compile_client.traces.bytecode import read
from compile_client.traces.entry import Trace, decode_trace, encode_trace
from compile_client.traces.errors import NotSkippedError
from compile_client.traces.graphs import loaded_graph
from compile_client.traces.key import trace_key, why_not
from compile_client.traces.load import Called, Fitting
from compile_client.traces.record import recorded_trace
from compile_client.transport.messages import LocalCompile, Part
from compile_client.transport.records import GraphNote
from compile_wire.errors import MalformedError
from compile_wire.trace import about_trace

if TYPE_CHECKING:
    import types

    from torch._dynamo.types import GuardedCode

    from compile_client.graphs.installer import Installer
    from compile_client.session.client import DaemonClient
    from compile_torch.versions import TorchVersion
    from compile_wire.digest import Digest

_MAX_ASKED = 8
"""How often the daemon is asked for more traces under one key; each answer has several."""


@dataclass(slots=True)
class Attempt:
    """One function that torch compiles now."""

    key: str
    """Empty where nothing is to be recorded."""
    called: Called
    graphs: dict[str, str | NotSkippedError] = field(default_factory=dict)
    """The daemon's keys by dynamo's names, or why a graph has none."""
    trace: Trace | None = None
    verified: tuple[Trace, Digest] | None = None
    """What would have been served, to be compared."""


@dataclass(slots=True)
class _Stored:
    trace: Trace
    digest: Digest


class Skipping:
    """Serves and records the traces of one process. torch compiles one function at a time, under a lock of its own."""

    def __init__(self, client: DaemonClient, installer: Installer, version: TorchVersion) -> None:
        self._client = client
        self._installer = installer
        self._version = version
        self._stored: dict[str, list[_Stored]] = {}
        self._sampling = Sampling(client.config.verify_traces)

    def begin(
        self, called: Called, compiler: Any, hooks: Any, *, one_graph: bool, export: bool, package: Any
    ) -> tuple[Attempt, GuardedCode | None]:
        """Return the function's attempt, and what takes the place of tracing where something does."""
        if found := why_not(hooks, compiler, export=export, package=package):
            self._refused(called, NotSkippedError(*found))
            return Attempt("", called), None
        if not self._client.available():
            return Attempt("", called), None
        key = trace_key(called.code, called.scope, compiler, self._version, one_graph=one_graph)
        attempt = Attempt(key, called)
        missed: NotSkippedError | None = None
        for stored in self._lookup(key):
            try:
                with _timed():
                    fitting = Fitting(stored.trace, called)
                    if self._sampling.draws():
                        attempt.verified = (stored.trace, stored.digest)
                        return attempt, None
                    return attempt, self._served(stored.trace, key, fitting, eval_frame.innermost_backend(compiler))
            except NotSkippedError as error:
                missed = min(missed or error, error, key=lambda one: one.distance)
            except Exception as error:  # noqa: BLE001 - one that cannot be read is none
                fault = InternalError.of(error)
                fault.__cause__ = error
                self._client.report.failed(fault, "it is traced")
        if missed is not None:
            self._missed(called, missed)
        return attempt, None

    def record(self, attempt: Attempt, output: Any, bytecode: types.CodeType, manager: Any) -> None:
        """Record what torch made of the function, or say why it cannot be told elsewhere."""
        called = attempt.called
        try:
            attempt.trace = recorded_trace(called.code, output, bytecode, manager, attempt.graphs, called.closure)
        except NotSkippedError as error:
            attempt.trace = None
            self._refused(called, error)

    def finish(self, attempt: Attempt) -> None:
        """Publish what was recorded, or compare it with what would have been served."""
        trace = attempt.trace
        disputed: tuple[Digest, ...] = ()
        if attempt.verified is not None:
            served, digest = attempt.verified
            differing = _differences(served, trace, attempt.called.code)
            self._client.counters.count_trace("verified")
            if not differing:
                return
            self._client.counters.count_trace("differing")
            disputed = (digest,)
            self._stored.pop(attempt.key, None)
            self._client.report.failed(
                MismatchError(f"a trace of {served.function} would have been served, and {differing}"),
                "it was traced, and the trace is taken out of the store"
                if self._client.may_publish()
                else "it was traced",
            )
        if trace is None or not self._client.may_publish():
            return
        self._client.counters.count_trace("recorded")
        about = about_trace(trace.function, trace.graphs)
        self._client.publish_later(
            LocalCompile(
                key=attempt.key, guards=about, compile_s=0.0, parts=(Part("trace", "", encode_trace(trace)),),
                disputed=disputed,
            )
        )  # fmt: skip

    def _lookup(self, key: str) -> list[_Stored]:
        if key in self._stored:
            return self._stored[key]
        found: list[_Stored] = []
        request = self._client.begin_graph(key)
        have: list[Digest] = []
        for _ in range(_MAX_ASKED):
            artifacts = request.lookup(have)
            if not artifacts:
                break
            have += [artifact.digest for artifact in artifacts]
            for artifact in artifacts:
                if artifact.manifest.kind != "trace":
                    continue
                (blob,) = artifact.manifest.blobs
                try:
                    found.append(_Stored(decode_trace(artifact.blobs[blob.sha256]), artifact.digest))
                except MalformedError as error:
                    self._client.report.failed(MalformedAnswerError(str(error)), "it is not used")
        self._stored[key] = found
        return found

    def _served(self, trace: Trace, key: str, fitting: Fitting, compiler: Any) -> GuardedCode:
        begun = time.monotonic()
        loaded: list[tuple[str, float]] = []

        def load(graph_key: str) -> Any:
            forward, saved_s = loaded_graph(graph_key, compiler, self._client, self._installer)
            loaded.append((graph_key, saved_s))
            return forward

        guarded = fitting.in_force(load)
        counters = self._client.counters
        counters.count_trace("skipped")
        for graph_key, saved_s in loaded:
            number = counters.count_graph()
            counters.count_hit(saved_s)
            self._client.remember_graph(
                GraphNote(
                    number=number, key=graph_key, outcome="hit", saved_s=saved_s, begun=begun,
                    waited_s=time.monotonic() - begun,
                )
            )  # fmt: skip
        self._client.report.trace_said(f"{trace.function} is not traced: a trace was served ({key[:14]})")
        return guarded

    def _refused(self, called: Called, error: NotSkippedError) -> None:
        self._client.counters.count_trace_refusal(error.reason)
        self._client.report.trace_said(f"{called.code.co_qualname} is traced in each process ({error.reason}): {error}")

    def _missed(self, called: Called, error: NotSkippedError) -> None:
        self._client.counters.count_trace("missed")
        self._client.report.trace_said(
            f"{called.code.co_qualname} is traced, no stored trace fits ({error.reason}): {error}"
        )


@contextlib.contextmanager
def _timed() -> Iterator[None]:
    """Open what torch's own timing of a compile has open, and its guards want to be counted in."""
    with (
        get_metrics_context(),
        dynamo_timed(
            "_compile.compile_inner",
            phase_name="entire_frame_compile",
            dynamo_compile_column_us="dynamo_cumulative_compile_time_us",
        ),
    ):
        yield


def _differences(served: Trace, own: Trace | None, code: types.CodeType) -> str:
    """Return in words in what a trace differs from the one that was made now; empty where it does not."""
    if own is None:
        return "what torch makes of it now cannot be told elsewhere"
    if served.graphs != own.graphs:
        now, then = (", ".join(key[:8] for key in one.graphs) for one in (own, served))
        return f"its graphs are {now} now, not {then}"
    if served.tree != own.tree:
        pairs = zip(served.tree, own.tree, strict=False)
        line = next((ours for theirs, ours in pairs if theirs != ours), "fewer or more than there were")
        return f"its guards are others: {line.strip(' |+-')[:200]}"
    names = {stand_in: stand_in for stand_in, _, _ in own.installed}
    if (served.installed, served.objects) != (own.installed, own.objects) or read(served.bytecode, names, code) != read(
        own.bytecode, names, code
    ):
        return "its bytecode is another"
    return ""
