"""What a replay came to, for people and as JSON: how many graphs, and whom they serve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from compiler_daemon.admin.plain import plain
from compiler_daemon.admin.recompile.run import Outcome, Serves
from compiler_daemon.store import ArtifactRow
from compiler_daemon.text import numbers

_SERVES: dict[Serves, str] = {
    "same": "{n} serve the same trainers as before: same environment, same key",
    "here": "{n} serve the same trainers, run here: another environment, same key",
    "settings": "{n} serve trainers of the same torch with other settings or hardware: their key is another",
    "torch": (
        "{n} are for another torch than they were captured with: each serves a trainer if the new torch's dynamo makes "
        "the same graph; `compiler-daemon replay --served` counts how many did"
    ),
}

_REASONS_SHOWN = 20


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print a line for each program, the refusals with their reasons, and whom the rest serves."""
    console = Console()
    table = Table("program", "graphs", "compiled", "already there", "refused", "compiling", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for program in sorted({outcome.request.program for outcome in outcomes}):
        mine = [outcome for outcome in outcomes if outcome.request.program == program]
        counts = Counter(outcome.status for outcome in mine)
        table.add_row(
            plain(program or "(unknown)"),
            str(len(mine)),
            str(counts["compiled"]),
            str(counts["there"]),
            str(counts["refused"]),
            numbers.seconds(sum(outcome.compile_s for outcome in mine)),
        )
    console.print(table)
    refused = [outcome for outcome in outcomes if outcome.status == "refused"]
    for outcome in refused[:_REASONS_SHOWN]:
        console.print(plain(f"refused: {outcome.request.key[:16]} of {outcome.request.program or '?'}: {outcome.why}"))
    if len(refused) > _REASONS_SHOWN:
        console.print(f"and {len(refused) - _REASONS_SHOWN} more; --json has all of them")
    for sentence in serves_text(outcomes):
        console.print(plain(sentence))


def serves_text(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a sentence for each kind of trainer that is served by now."""
    counts = Counter(outcome.serves for outcome in outcomes if outcome.status != "refused")
    return [text.format(n=counts[serves]) for serves, text in _SERVES.items() if counts[serves]]


def as_document(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the outcomes as JSON has them."""
    counts = Counter(outcome.status for outcome in outcomes)
    return {
        "graphs": len(outcomes),
        "compiled": counts["compiled"],
        "already_there": counts["there"],
        "refused": counts["refused"],
        "serves": dict(Counter(outcome.serves for outcome in outcomes if outcome.status != "refused")),
        "outcomes": [
            {
                "program": outcome.request.program,
                "key": outcome.request.key,
                "status": outcome.status,
                "new_key": outcome.key,
                "environment": outcome.environment,
                "compile_s": round(outcome.compile_s, 3),
                "serves": outcome.serves if outcome.status != "refused" else "",
                "why": outcome.why,
            }
            for outcome in outcomes
        ],
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class Served:
    """Counts how many artifacts that `replay` made have served a trainer since; `--json` prints it as it is."""

    replayed: int
    served: int
    hits: int
    seconds_saved: float

    @classmethod
    def of(cls, rows: Sequence[ArtifactRow]) -> Served:
        """Count them among the artifacts that `replay` made."""
        used = [row for row in rows if row.hits]
        saved = sum(row.compile_s * row.hits for row in used)
        hits = sum(row.hits for row in used)
        return cls(replayed=len(rows), served=len(used), hits=hits, seconds_saved=round(saved, 3))

    @property
    def sentence(self) -> str:
        """The same in words."""
        return (
            f"{self.served} of {self.replayed} artifacts that `replay` made have served a trainer, "
            f"{self.hits} times in all, and saved {numbers.seconds(self.seconds_saved)} of compiling"
        )
