"""Who will pass dynamo's `recompile_limit`, after which dynamo runs a function eagerly without another word.

Known for each cell: how many graphs dynamo made of each function in one process. For the sweep as a whole: how many
different graphs of a function there are in all cells together, which is what one process that ran them all would need.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from compiler_daemon.admin.sweep.cell import CellResult

_RAISE = (
    "raise it with `torch._dynamo.config.recompile_limit = {wanted}` before the first compiled call (torch 2.13 and "
    "later also take `torch.compile(..., recompile_limit={wanted})`), or have sizes traced as symbols with "
    "`dynamic=True`"
)


def warnings(results: Iterable[CellResult]) -> list[str]:
    """Return what to say about a sweep's cells, a sentence or two each."""
    found, together = [], defaultdict[str, dict[str, set[str]]](lambda: defaultdict(set))
    limits: dict[str, int] = {}
    passing: set[str] = set()
    for result in results:
        limit, sweep = result.recompile_limit, result.cell.sweep
        if not limit:
            continue
        limits[sweep] = min(limit, limits.get(sweep, limit))
        counts = _graphs_by_code(result)
        for code, keys in counts.items():
            together[sweep][code] |= keys
        largest = max(counts, key=lambda code: len(counts[code]), default="")
        if result.hit_limit:
            passing.add(sweep)
            found.append(
                f"{result.cell.label}: dynamo passed its recompile_limit of {limit} and ran a function eagerly from "
                "then on: its further graphs are not warmed, and the sweep will not compile them either; "
                + _RAISE.format(wanted=2 * limit)
            )
        elif largest and len(counts[largest]) >= limit:
            passing.add(sweep)
            found.append(
                f"{result.cell.label}: {len(counts[largest])} graphs of {largest}, where dynamo's recompile_limit is "
                f"{limit}: one more and it runs eagerly; " + _RAISE.format(wanted=2 * len(counts[largest]))
            )
    for sweep, codes in together.items():
        largest = max(codes, key=lambda code: len(codes[code]))
        if len(codes[largest]) > limits[sweep] and sweep not in passing:
            found.append(
                f"{sweep or 'the sweep'}: all cells together have {len(codes[largest])} graphs of {largest}. A single "
                f"process that runs them all passes dynamo's recompile_limit of {limits[sweep]}; there, "
                + _RAISE.format(wanted=len(codes[largest]) + limits[sweep])
            )
    return found


def _graphs_by_code(result: CellResult) -> Mapping[str, set[str]]:
    counts = defaultdict[str, set[str]](set)
    for row in result.rows:
        if row.code and row.key:
            counts[row.code].add(row.key)
    return counts
