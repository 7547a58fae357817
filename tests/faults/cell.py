"""A cell of the matrix is one of eleven faults at one of eight steps, with the counter that must name it.

A step is an instant, found by what happens and never by the clock:

handshake         the request has come and has not been passed on lookup            the same for a lookup compile queued
the daemon has said that the graph waits; its only worker stands in the middle of another graph compile running   the
daemon has said that the graph is being compiled, and g++ stands in front of the first kernel artifact transfer half of
the first blob has been passed on (a lookup's blobs are taken out, so that each is read) install           the trainer
is about to make the first file of an artifact; the second graph is still to come publish           the request has come
and has not been passed on; torch compiled the graph, which no daemon can carry kernel compile    the daemon has given a
Triton kernel to its only worker, which was stopped before and goes on after
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.faults.scene import Scene

FAULTS = (
    "kill -9",
    "SIGSTOP",
    "connection cut",
    "garbage reply",
    "slow reply",
    "disk full",
    "worker killed",
    "out of memory",
    "wrong key",
    "wrong signature",
    "clock jump",
)
STEPS = (
    "handshake",
    "lookup",
    "compile queued",
    "compile running",
    "artifact transfer",
    "install",
    "publish",
    "kernel compile",
)

GARBAGE = b"\xff" * 64
"""These bytes are no message of any kind, because a tag with the field number 0 does not exist."""

HANG_S = 5.0
"""The user's deadline for a graph, in cells whose fault makes it wait in vain."""
WORK_S = 240.0
"""The user's deadline in cells where the daemon compiles in the end, on whichever machine this runs."""

Play = Callable[[Scene], None]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One fault at one step, with what must come of it."""

    fault: str
    step: str
    play: Play
    """Sets rules and switches before the trainer starts."""
    counters: tuple[str, ...]
    """At least one of these must rise: `client:KIND.REASON` in the trainer's report, or `daemon:NAME` in the status."""
    what: str
    """What is done and what comes of it, in words for a reader of the table."""
    timeout_s: float = HANG_S
    options: dict[str, Any] = field(default_factory=dict)
    """Options for the scene, in addition to those of the step."""

    @property
    def name(self) -> str:
        """The name of the cell on the command line."""
        return f"{self.fault}:{self.step}".replace(" ", "-")

    def scene_options(self) -> dict[str, Any]:
        """The options with which the scene is set up."""
        form = {"install": "two", "publish": "own", "kernel compile": "kernel"}.get(self.step, "one")
        stored = self.step in {"handshake", "lookup", "artifact transfer", "install"}
        prewarm = self.step in {"compile queued", "compile running", "kernel compile"}
        return {"form": form, "stored": stored, "prewarm": prewarm, "timeout_s": self.limit_s} | self.options

    @property
    def limit_s(self) -> float:
        """How long a graph may wait. The daemon works until the compile runs; a stream that goes silent is given up."""
        return WORK_S if self.step in {"compile running", "kernel compile"} else self.timeout_s

    @property
    def graphs(self) -> int:
        """How many graphs (or kernels) the trainer has."""
        return 2 if self.step == "install" else 1

    @property
    def of_kernels(self) -> bool:
        """Whether the trainer has kernels and no graph, for which it needs Triton."""
        return self.step == "kernel compile"
