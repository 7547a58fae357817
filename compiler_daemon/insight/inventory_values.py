"""What an operator is told of what is kept, as values: the daemon makes them, and so do the commands that show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compile_wire.digest import Digest
from compiler_daemon.store import ArtifactRow, GcReport, StoredGraph


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentView:
    """An environment as an operator sees it."""

    environment: Digest
    fields: Mapping[str, str]
    served: bool
    """Whether a process that this daemon serves, or a worker of its own, has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """Lists everything that is kept under one name, newest first."""

    artifacts: Sequence[ArtifactRow]
    requests: Sequence[StoredGraph]


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """What a collection removed, or would remove."""

    report: GcReport
    artifacts: Sequence[ArtifactRow]
