"""What rows of the corpus come to, in one document, and what of it is not as it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

AIM = 0.97


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sums; the share is of the graphs that torch can cache and that something was compiled for."""
    ran = [row for row in rows if "failed" not in row]
    total = {name: sum(row[name] for row in ran) for name in ("by_daemon", "here", "local", "uncacheable")}
    cacheable = total["by_daemon"] + total["here"] - total["uncacheable"]
    refused: Counter[str] = Counter()
    for row in ran:
        refused.update(row["refused"])
    return {
        "entries": len(rows),
        "models": len({row["model"] for row in ran}),
        "failed": [row["name"] for row in rows if "failed" in row],
        "graphs": sum(graphs(row) for row in ran),
        **total,
        "refused": dict(refused),
        "share": round(total["by_daemon"] / cacheable, 4) if cacheable else 0.0,
        "compared": sum(row["compared"] for row in ran),
        "differing": [row["name"] for row in ran if row["differing"]["cold"] or row["differing"]["warm"]],
        "warm_graphs": sum(warm_graphs(row) for row in ran),
        "warm_hits": sum(row["warm_hits"] for row in ran),
        "warm_builds": sum(row["warm_builds"] for row in ran),
        "not_warm": [row["name"] for row in ran if _builds_again(row)],
    }


def graphs(row: Mapping[str, Any]) -> int:
    """Return how many graphs an entry has, without those that torch gave up to trace the program once more."""
    return int(row["graphs"] - row["traced_again"])


def warm_graphs(row: Mapping[str, Any]) -> int:
    """Return how many a second start had; rows that do not say what it traced again traced the same as the first."""
    return int(row["warm_graphs"] - row.get("warm_traced_again", row["traced_again"]))


def _builds_again(row: Mapping[str, Any]) -> bool:
    """Whether a second start compiled anything that torch can cache."""
    uncacheable = row["warm_refused"].get("uncacheable", 0)
    return bool(row["warm_here"] > uncacheable or (row["warm_builds"] and not uncacheable))


def complaints(found: Mapping[str, Any]) -> list[str]:
    """Return what does not hold of what the corpus is there to show."""
    checks = {
        f"these entries failed: {', '.join(found['failed'])}": bool(found["failed"]),
        f"{found['share']:.1%} of the graphs that torch can cache were compiled by the daemon, not {AIM:.0%}": found[
            "share"
        ]
        < AIM,
        f"numbers differ from torch's own in {', '.join(found['differing'])}": bool(found["differing"]),
        f"the second start compiled something in {', '.join(found['not_warm'])}": bool(found["not_warm"]),
    }
    return [text for text, holds in checks.items() if holds]


def outcome(row: Mapping[str, Any]) -> str:
    """Return what became of an entry, in a few words."""
    if "failed" in row:
        return str(row["failed"])
    differing = sorted({*row["differing"]["cold"], *row["differing"]["warm"]})
    parts = [
        f"{graphs(row)} graphs, {row['by_daemon']} by the daemon",
        f"warm {row['warm_hits']} of {warm_graphs(row)}, {row['warm_builds']} builds",
        *(f"{count} {reason}" for reason, count in row["refused"].items()),
        *(f"fallback {reason} {count}" for reason, count in {**row["fallbacks"], **row["warm_fallbacks"]}.items()),
        f"{row['compared']} equal" if not differing else f"NOT EQUAL: {', '.join(differing)}",
    ]
    return "; ".join(parts)


def traced_totals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how many graphs came to what, where none was compiled."""
    graphs = [graph["outcome"] for row in rows for graph in row["graphs"]]
    return {
        "entries": len(rows),
        "models": len({row["model"] for row in rows if "failed" not in row}),
        "failed": [row["name"] for row in rows if "failed" in row],
        **{outcome: graphs.count(outcome) for outcome in ("taken", "refused", "uncacheable", "traced_again")},
    }
