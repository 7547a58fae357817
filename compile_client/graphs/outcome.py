"""What becomes of one graph: which state it is in, why torch compiles it here, and what is told of it at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from compile_client.errors import InstallError, MismatchError
from compile_client.graphs.source_lines import origin_of_named
from compile_client.session.background_compiles import Outcome, WarmResult
from compile_client.transport.records import GraphNote
from compile_client.transport.records import Outcome as RunOutcome

if TYPE_CHECKING:
    import torch

    from compile_client.session.client import DaemonClient
    from compile_client.transport.messages import Artifact
    from compile_wire.digest import Digest


class GraphState(Enum):
    """Says where a graph's compiled code comes from, as far as that is known."""

    COMPILED_HERE = "torch compiles it in this process"
    LOCAL_HIT = "torch's own cache has it"
    STORED = "the daemon had an artifact, which is in place"
    COMPILED_BY_DAEMON = "the daemon has compiled it, and the artifact is in place"
    DEFERRED = "it runs eagerly here, and is compiled in the background"


_OUTCOMES: dict[GraphState, tuple[RunOutcome, Outcome]] = {
    GraphState.COMPILED_HERE: ("compiled_here", "here"),
    GraphState.LOCAL_HIT: ("hit_local", "local"),
    GraphState.STORED: ("hit", "there"),
    GraphState.COMPILED_BY_DAEMON: ("compiled_by_daemon", "compiled"),
}


@dataclass(frozen=True, slots=True)
class Reason:
    """Says why torch compiles a graph in this process: in one word for counters, and in a sentence."""

    code: str
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


class GraphOutcome:
    """Collects what is found out about one graph, and reports it when torch is done with it."""

    def __init__(self, gm: torch.fx.GraphModule, client: DaemonClient, *, number: int, code: str) -> None:
        """`number` counts the process's graphs from 1; `code` names the function that the graph was traced from."""
        self._gm = gm
        self._client = client
        self._number = number
        self._code = code
        self._begun = time.monotonic()
        self.state = GraphState.COMPILED_HERE
        self.artifact: Artifact | None = None
        """The daemon's, where its files are in place."""
        self.reason: Reason | None = None
        self.tried: list[Artifact] = []
        """Artifacts whose guards did not hold."""
        self.store_key = ""
        self.asking_s = 0.0
        self.spec: Digest | None = None
        self.differing: list[str] | None = None
        """What verification found; None where the graph was not verified, or not yet."""

    @property
    def served(self) -> bool:
        """Whether an artifact of the daemon's is in place."""
        return self.artifact is not None

    def serve(self, artifact: Artifact, *, compiled: bool) -> None:
        """Note that an artifact is in place; `compiled` says that the daemon has made it for this request."""
        self.artifact = artifact
        self.state = GraphState.COMPILED_BY_DAEMON if compiled else GraphState.STORED

    def compile_here(self) -> None:
        """Note that nothing of the daemon's is used after all."""
        self.artifact = None
        self.state = GraphState.COMPILED_HERE

    def explain(self, reason: Reason, key: str) -> None:
        """Remember and log why torch compiles the graph in this process although a daemon is there."""
        self.reason = reason
        self._client.report.compiled_locally(key, reason.code, reason.text)

    def deferred(self) -> None:
        """Count a graph that runs eagerly here."""
        self._client.counters.count_deferred()

    def skipped(self) -> None:
        """Count and note a graph that is not compiled at all, in compile-only mode."""
        self.deferred()
        text = self.reason.text if self.reason else "no daemon answers, or torch's caches are switched off"
        self._note_warm("lost", 0.0, text)

    def finish(self, seconds: float, *, loaded: bool, uncacheable: bool) -> bool:
        """Count, note and remember what became of the graph; return whether torch has compiled it here.

        `seconds` is what torch took in all, `loaded` whether it took the code from a cache, `uncacheable` whether
        it has no key although a daemon is there. Raises `InstallError` where torch could not load the artifact that was
        in place.
        """
        if self.state is GraphState.DEFERRED:
            self.deferred()
            return False
        if not loaded and not (self.served and self.differing == []):  # what verification found equal is as if loaded
            self._finish_here(max(0.0, seconds - self.asking_s), uncacheable=uncacheable)
            return True
        counters = self._client.counters
        once_s = self.artifact.manifest.compile_s if self.artifact is not None else 0.0
        match self.state:
            case GraphState.LOCAL_HIT:
                counters.count_local_hit()
            case GraphState.STORED:
                counters.count_hit(once_s)
            case GraphState.COMPILED_BY_DAEMON:
                counters.count_daemon_compile()
            case _:  # torch's hit of something else, of which nothing is known here
                self._finish_here(max(0.0, seconds - self.asking_s), uncacheable=uncacheable)
                return True
        outcome, warm = _OUTCOMES[self.state]
        self._note_warm(warm, once_s)
        self._remember(outcome, saved_s=once_s if self.state is GraphState.STORED else 0.0)
        return False

    def _finish_here(self, spent_s: float, *, uncacheable: bool) -> None:
        report = self._client.report
        report.counters.count_local_compile()
        self._note_warm("here", spent_s, str(self.reason or ""))
        if uncacheable:
            report.counters.count_refusal("uncacheable")
            self.reason = Reason("uncacheable", "torch has no key for it, and caches it nowhere")
        unusable: InstallError | None = None
        if self.differing:
            self._dispute(MismatchError(f"graph {self.store_key[:8]} was served with {'; '.join(self.differing)}"))
        elif self.served:
            unusable = InstallError("torch could not load an artifact of the daemon's, and compiled by itself")
            self.reason = Reason(unusable.reason, str(unusable))
        self._remember("compiled_here", spent_s=spent_s)
        if unusable is not None:
            raise unusable

    def _dispute(self, mismatch: MismatchError) -> None:
        self._client.report.failed(
            mismatch,
            "torch's own compile is used, and the artifact is taken out of the store"
            if self._client.may_publish()
            else "torch's own compile is used; who may publish can take the artifact out: `rm`",
        )
        self.reason = Reason(mismatch.reason, str(mismatch))
        self.artifact = None

    def _note_warm(self, outcome: Outcome, seconds: float, why: str = "") -> None:
        if self._client.config.warm:
            self._client.background.note(
                WarmResult(
                    key=self.store_key,
                    code=self._code,
                    outcome=outcome,
                    seconds=seconds,
                    why=why,
                    host=self.artifact.host if self.artifact is not None else "",
                )
            )

    def _remember(self, outcome: RunOutcome, *, saved_s: float = 0.0, spent_s: float = 0.0) -> None:
        """Have the daemon told in the background, for `explain`."""
        code, message = self._why_here() if outcome == "compiled_here" else ("", "")
        if self.tried and not message:
            guards = next((artifact.manifest.guards for artifact in self.tried if artifact.manifest.guards), "")
            message = f"these guards did not hold: {guards}" if guards else "torch accepted none of what is stored"
        if code and (origin := origin_of_named(self._gm, message)) and origin not in message:
            message = f"{message}, at {origin}"
        self._client.remember_graph(
            GraphNote(
                number=self._number,
                key=self.store_key,
                outcome=outcome,
                reason=code,
                message=message,
                tried=len(self.tried),
                waited_s=self.asking_s,
                saved_s=saved_s,
                spent_s=spent_s,
                graph=self.spec,
                begun=self._begun,
            )
        )

    def _why_here(self) -> tuple[str, str]:
        if self.reason is not None:
            return self.reason.code, self.reason.text
        return self._client.report.last_failure() or ("not_served", "it is compiled without the daemon")
