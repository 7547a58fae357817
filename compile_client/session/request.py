"""One graph's, or one kernel's, dealings with the daemon: looked up, then compiled, all inside one deadline."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from compile_client.errors import ClientError
from compile_client.log import logger
from compile_client.reporting.counters import Report
from compile_client.reporting.progress import Progress
from compile_client.transport.connection import Connection
from compile_client.transport.deadline import Deadline
from compile_client.transport.messages import Artifact, Refusal
from compile_wire.digest import Digest

T = TypeVar("T")


class Asking(Protocol):
    """Describes what a request needs of the process's client."""

    @property
    def report(self) -> Report:
        """The process's counters."""
        ...

    def ask(self, deadline: Deadline, exchange: Callable[[Connection], T]) -> T | None:
        """Return the answer to one question, or None after trouble, which is then counted and said."""
        ...

    def trouble(self, error: ClientError, consequence: str) -> None:
        """Count a trouble, and say it once."""
        ...

    def doubt(self, error: ClientError) -> None:
        """Have the daemon's credentials read again before the next question."""
        ...


class GraphRequest:
    """Asks the daemon for one graph. All its waits lie inside one deadline; after a failure it asks no more.

    Used by one thread. Never raises.
    """

    def __init__(self, client: Asking, key: str, deadline: Deadline) -> None:
        self._client = client
        self._key = key
        self._deadline = deadline
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether trouble has ended it: torch compiles here."""
        return self._ended

    def lookup(self, have: Collection[Digest] = ()) -> list[Artifact]:
        """Return what the daemon has under the key, newest first, less `have`. Empty on a miss and after trouble.

        Entries that fail verification are left out and counted; they are a miss, not the end of the request.
        """
        if self._ended:
            return []
        found = self._client.ask(self._deadline, lambda connection: connection.lookup(self._key, have, self._deadline))
        if found is None:
            self._ended = True
            return []
        for error in found.rejected:
            self._client.trouble(error, "it is not used")
        if found.rejected and not found.artifacts:  # the secret may be another by now: read it again
            self._client.doubt(found.rejected[0])
        return found.artifacts

    def compile(self, graph: bytes, have: Collection[Digest] = (), *, quiet: bool = False) -> Artifact | Refusal | None:
        """Have the graph compiled; return the artifact, the daemon's refusal, or None after trouble.

        A refusal is counted here. The waiting user is kept informed on standard error, unless nobody waits
        (`quiet`): then the compile also stands back behind other work.
        """
        if self._ended:
            return None
        client = self._client
        with Progress(max(1, client.report.graphs), self._key, quiet=quiet) as progress:
            outcome = client.ask(
                self._deadline,
                lambda connection: connection.compile(
                    self._key,
                    graph,
                    have,
                    on_event=progress.update,
                    deadline=self._deadline,
                    ahead=quiet,
                ),
            )
        return self._noted(outcome, self._client.report.count_refusal)

    def compile_kernel(self, kernel: bytes) -> Artifact | Refusal | None:
        """As `compile`, for a Triton kernel; the client must be one of an environment of kernels."""
        if self._ended:
            return None
        return self._noted(
            self._client.ask(
                self._deadline,
                lambda connection: connection.compile_kernel(self._key, kernel, deadline=self._deadline),
            ),
            self._client.report.count_kernel_refusal,
        )

    def _noted(
        self, outcome: Artifact | Refusal | None, count_refusal: Callable[[str], None]
    ) -> Artifact | Refusal | None:
        if outcome is None:
            self._ended = True
        elif isinstance(outcome, Refusal):
            count_refusal(outcome.reason)
            logger.debug("%s refused: %s: %s %s", self._key, outcome.reason, outcome.message, outcome.fields)
        return outcome
