"""One graph's, or one kernel's, dealings with the daemon: looked up, then compiled, all inside one deadline."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from compile_client.log import logger
from compile_client.reporting.progress import Progress
from compile_client.transport.deadline import Deadline
from compile_client.transport.messages import TRACED_AGAIN, Artifact, CompileRequest, Refusal

if TYPE_CHECKING:
    from compile_client.errors import ClientError
    from compile_client.reporting.counters import Counters
    from compile_client.reporting.process_report import ProcessReport
    from compile_client.transport.connection import Connection, Found
    from compile_wire.digest import Digest


class Session(Protocol):
    """Describes what a request needs of the process's client."""

    report: ProcessReport

    @property
    def counters(self) -> Counters:
        """The process's counters."""
        ...

    def exchange(self, deadline: Deadline) -> AbstractContextManager[Connection]:
        """Lend the connection for one question."""
        ...

    def reload_credentials(self, error: ClientError) -> None:
        """Have the daemon's credentials read again before the next question."""
        ...


class GraphRequest:
    """Asks the daemon for one graph or kernel. All its waits lie inside one deadline; after a failure it asks no more.

    Used by one thread. Never raises.
    """

    def __init__(self, client: Session, key: str, deadline: Deadline) -> None:
        self._client = client
        self._key = key
        self._deadline = deadline
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether a failure has ended it: torch compiles here."""
        return self._ended

    def lookup(self, have: Collection[Digest] = ()) -> list[Artifact]:
        """Return what the daemon has under the key, newest first, less `have`. Empty on a miss and after a failure.

        Entries that fail verification are left out and counted; they are a miss, not the end of the request.
        """
        if self._ended:
            return []
        found: Found | None = None
        with self._client.report.guarding(), self._client.exchange(self._deadline) as connection:
            found = connection.lookup(self._deadline, self._key, have)
        if found is None:
            self._ended = True
            return []
        for error in found.rejected:
            self._client.report.failed(error, "it is not used")
        if found.rejected and not found.artifacts:  # the secret may be another by now
            self._client.reload_credentials(found.rejected[0])
        return found.artifacts

    def compile(self, request: CompileRequest) -> Artifact | Refusal | None:
        """Have the graph or kernel compiled; return the artifact, the daemon's refusal, or None after a failure.

        A refusal is counted here, unless torch gives the graph up by itself. The user who waits for a graph is kept
        informed on standard error, unless nobody does (`request.background`).
        """
        if self._ended:
            return None
        counters = self._client.counters
        silent = request.background or request.kind == "kernel"
        outcome: Artifact | Refusal | None = None
        with (
            self._client.report.guarding(),
            Progress(max(1, counters.graphs), self._key, silent=silent) as progress,
            self._client.exchange(self._deadline) as connection,
        ):
            outcome = connection.compile(self._deadline, request, progress.update)
        if outcome is None:
            self._ended = True
        elif isinstance(outcome, Refusal):
            if outcome.reason == TRACED_AGAIN:
                return outcome  # torch does the same here, and then it is counted
            (counters.count_kernel_refusal if request.kind == "kernel" else counters.count_refusal)(outcome.reason)
            logger.debug("%s refused: %s: %s %s", self._key, outcome.reason, outcome.message, outcome.fields)
        return outcome
