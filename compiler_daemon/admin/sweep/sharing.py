"""One sweep run on several nodes: an order of each node's own, what a daemon needs for it, and who compiled what.

Every node runs all cells, so that at the end its own daemon has every graph; what another node has compiled, or is
compiling, its daemon takes from the tier. Nodes that went through the cells in the same order would all wait for the
same graph: so each has its own.
"""

from __future__ import annotations

import os
import random
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from compiler_daemon.admin.answers import DaemonState
from compiler_daemon.admin.sweep.cell import CellResult
from compiler_daemon.admin.sweep.plan import Cell
from compiler_daemon.errors import UsageError
from compiler_daemon.text import numbers
from compiler_daemon.tier.signer_files import SignerFiles

_TIERS = "tiers"
"""The part of a daemon's state that says which tiers it has."""


def seed_of_this_process() -> str:
    """Return a seed that no other process of the fleet has."""
    return f"{socket.gethostname()}-{os.getpid()}"


def in_own_order(cells: Sequence[Cell], seed: str) -> list[Cell]:
    """Return the cells in the order that belongs to a seed."""
    # Each cell draws for itself: a cell more or less leaves the order of the others as it was.
    return sorted(cells, key=lambda cell: random.Random(f"{seed} {cell.digest}").random())  # noqa: S311 - no secret


def check_can_share(state: DaemonState, directory: Path) -> None:
    """Raise `UsageError` where a daemon would compile all for itself.

    `directory` is where it was looked for; the signer can be seen only where that is the daemon's own directory.
    """
    # A daemon that says nothing of tiers may have some: it is not refused.
    if _TIERS in state.document and not state.document[_TIERS]:
        raise UsageError(
            "the daemon has no tier, so there is nobody to share with: start it with "
            "`compiler-daemon serve --tier file:///DIR`, or s3:// or redis://, the same on all nodes"
        )
    if Path(state.directory) == directory and SignerFiles(directory).read_own() is None:
        raise UsageError(
            "the daemon signs nothing, so no other node would use what it compiles: "
            "`compiler-daemon keys signer init NAME-1` makes a key, and the others trust its line"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """Counts the different graphs of a sweep by who compiled them."""

    here: int = 0
    """By this node's daemon, in this run."""
    elsewhere: int = 0
    """By other nodes; they came from the tier."""
    hosts: tuple[tuple[str, int], ...] = ()
    """Of these, how many by which node, the busiest first."""
    found: int = 0
    """Stored on this node before."""
    by_trainers: int = 0
    """By torch in a trainer, because the daemon had none to offer."""

    @classmethod
    def of(cls, results: Iterable[CellResult]) -> Self:
        """Count them; a graph of several cells counts once."""
        outcomes: dict[str, set[str]] = {}
        hosts: dict[str, str] = {}
        for row in (row for result in results for row in result.rows if row.key):
            outcomes.setdefault(row.key, set()).add(row.outcome)
            if row.host:
                hosts.setdefault(row.key, row.host)
        # What was compiled here for one cell is found by the next: the first that applies is said.
        counts = Counter(
            next((word for word in ("compiled", "elsewhere", "here", "there", "local") if word in said), "")
            for said in outcomes.values()
        )
        made = Counter(host for key, host in hosts.items() if "compiled" not in outcomes[key])
        return cls(
            here=counts["compiled"],
            elsewhere=counts["elsewhere"],
            hosts=tuple(made.most_common()),
            found=counts["there"] + counts["local"],
            by_trainers=counts["here"],
        )

    @property
    def sentence(self) -> str:
        """The same in words."""
        by_host = ", ".join(f"{host} {count}" for host, count in self.hosts)
        parts = [
            f"{self.here} compiled on this node",
            f"{self.elsewhere} on other nodes" + (f" ({by_host})" if by_host else ""),
            f"{self.found} found",
        ]
        if self.by_trainers:
            parts.append(f"{self.by_trainers} compiled by a trainer")
        total = self.here + self.elsewhere + self.found + self.by_trainers
        return f"{numbers.counted(total, 'graph')}: {', '.join(parts)}"

    def as_document(self, seed: str) -> dict[str, object]:
        """Return it as JSON has it."""
        return {
            "seed": seed,
            "on_this_node": self.here,
            "on_other_nodes": self.elsewhere,
            "hosts": dict(self.hosts),
            "found": self.found,
            "by_trainers": self.by_trainers,
        }
