"""The product with one part taken out: whether a scenario notices it.

A copy of `compiler_daemon` with some lines changed; daemons find it before the real one. A line that is not there any
more is an error, so that no weakness stops being one unnoticed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import REPOSITORY


@dataclass(frozen=True)
class Edit:
    """A place of the product, and what stands there instead."""

    file: str
    text: str
    instead: str


@dataclass(frozen=True)
class Weakness:
    """A part of the product, and how it is taken out."""

    scenario: str
    """Whose rows must fail without it."""
    what: str
    edits: tuple[Edit, ...]


_NO_LEASE = """        except TierError as error:
            tier.count(metrics.TIER_FAILED)
            logger.info("no lease"""
_SCHEDULER_GONE = """            except FarmAwayError as error:
                only_here = True"""

_LEASES = Edit(
    "compiles/turns.py",
    "taken = await self._tiers.take(job.environment, job.key, expected_s)",
    "taken = None",
)
_ADOPTION = Edit("tier/tiers.py", "found: Found | None = task.result()", "found: Found | None = None")
_BUDGET = Edit("tier/budget.py", "least_s: float = 0.3", "least_s: float = 6.0")
_BREAKER = Edit(
    "tier/breaker.py",
    "if lasting or probe or self._failures >= self._config.failures:",
    "if lasting:",
)
_FAR = Edit(
    "tier/tiers.py",
    "        await asyncio.wait({begun.task}, timeout=budget_s)\n",
    "        await asyncio.wait({begun.task}, timeout=budget_s)\n        await asyncio.sleep(1)\n",
)

WEAKNESSES = {
    "leases": Weakness("cold", "leases: every node compiles for itself", (_LEASES,)),
    "lost-tier": Weakness(
        "redis-killed",
        "the catching of a tier's error: it reaches who asked for the compile",
        (Edit("tier/tiers.py", _NO_LEASE, _NO_LEASE.replace("TierError", "ZeroDivisionError")),),
    ),
    "leases-of-a-sweep": Weakness("sweep", "leases", (_LEASES,)),
    "scheduler": Weakness(
        "farm",
        "the second try here after the farm has gone",
        (
            Edit(
                "compiles/single_flight.py",
                _SCHEDULER_GONE,
                _SCHEDULER_GONE.replace("FarmAwayError", "ZeroDivisionError"),
            ),
        ),
    ),
    "near-tier": Weakness("hits", "a tier that is near: each lookup there takes a second more", (_FAR,)),
    "breaker": Weakness("local-hits", "the breaker: a tier that hangs is asked each time", (_BREAKER,)),
    "agreement": Weakness(
        "ranks", "leases, and the adoption of what another node was first with", (_LEASES, _ADOPTION)
    ),
    "lease-release": Weakness(
        "slurm",
        "the release of leases: they stay until they run out",
        (Edit("tier/leases.py", "            await self._leases.store.remove(self.sha, self._taken)\n", ""),),
    ),
    "create-only": Weakness(
        "second-s3",
        "the condition of a PUT: what is there is written over",
        (
            Edit(
                "tier/engines/objects.py",
                'mode: Any = "create" if exclusive else "overwrite"',
                'mode: Any = "overwrite"',
            ),
        ),
    ),
    "budget": Weakness("faults", "the budget of a lookup: it waits for 6 s", (_BUDGET,)),
}


def weakened_copy(name: str, folder: Path) -> dict[str, str]:
    """Make the copy in a folder; return the variables with which a process imports it."""
    copy = folder / "weakened"
    shutil.copytree(
        REPOSITORY / "compiler_daemon", copy / "compiler_daemon", ignore=shutil.ignore_patterns("__pycache__")
    )
    for edit in WEAKNESSES[name].edits:
        path = copy / "compiler_daemon" / edit.file
        path.write_text(edited(path.read_text(), edit))
    places = [str(copy), str(REPOSITORY), str(REPOSITORY / "proto")]
    # Without the second, `python -m` looks into the working directory first, which has the whole product.
    return {"PYTHONPATH": os.pathsep.join(places), "PYTHONSAFEPATH": "1"}


def edited(text: str, edit: Edit) -> str:
    """Return a module's text with the edit; raise `ValueError` where its place is not there exactly once."""
    if (found := text.count(edit.text)) != 1:
        raise ValueError(f"{edit.file} has {edit.text!r} {found} times: look again at what is taken out")
    return text.replace(edit.text, edit.instead)
