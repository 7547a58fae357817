"""The record of one Triton kernel: written while it is dealt with, told to the daemon once."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from compile_client.transport.records import GraphNote, Outcome

if TYPE_CHECKING:
    from compile_client.session.client import DaemonClient
    from compile_wire.digest import Digest

_kernel_numbers = itertools.count(1)
"""Of this process's kernels; a forked child goes on with it, in a record of its own."""


@dataclass(slots=True)
class KernelRecord:
    """Records what becomes of one kernel: written by the thread that compiles it, and reported once."""

    key: str
    """Under which the daemon files it."""
    name: str
    reason: str = ""
    """Why it is compiled here: one word, and then in words."""
    message: str = ""
    spec: Digest | None = None
    waited_s: float = 0.0
    begun: float = field(default_factory=time.monotonic)

    def here(self, reason: str, message: str) -> None:
        """Note why it will be compiled here; the first reason stands."""
        if not self.reason:
            self.reason, self.message = reason, message

    def asked(self, client: DaemonClient) -> None:
        """Note that the daemon was asked; where that failed, the failure is the reason."""
        self.waited_s = time.monotonic() - self.begun
        if failure := client.report.last_failure():
            self.here(*failure)

    def tell(self, client: DaemonClient, outcome: Outcome, *, saved_s: float = 0.0, spent_s: float = 0.0) -> None:
        """Have it remembered."""
        reason, message = (self.reason or "unknown", self.message) if outcome == "compiled_here" else ("", "")
        client.remember_graph(
            GraphNote(
                number=next(_kernel_numbers),
                key=self.key,
                outcome=outcome,
                reason=reason,
                message=f"kernel {self.name}: {message}" if reason else "",
                waited_s=self.waited_s,
                saved_s=saved_s,
                spent_s=spent_s,
                graph=self.spec,
                begun=self.begun,
            )
        )
