"""What came of the end-to-end tests and of twins with traces skipped: `make traces` calls it after them.

    python tools/traces.py runs/traces-e2e.jsonl runs/traces-twins.jsonl

Reads the rows that the trainers and the twins left, and writes docs/trust/traces.md. Exit code 1 where anything
differed, or where nothing was compared.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.twins.pairs import all_pairs

_PAGE = """# Traces of other processes, compared and put to use

Written by `tools/traces.py` of the rows there were on {when}, torch {torch}. `make traces` makes all of them; the first
columns say how many were made. The [zoo](skipped.md) is a table of its own.

## End-to-end tests, each trace compared

`tests/e2e` with `TORCH_COMPILE_CLIENT_SKIP_TRACE=verify`: a trainer traces each function, also where it could have
taken another process's trace, and compares graphs, guards and bytecode.

| tests | trainers | functions recorded | compared | differ | no stored trace fitted | refused |
|---:|---:|---:|---:|---:|---:|---|
| {tests} | {trainers} | {e2e[recorded]} | {e2e[verified]} | {e2e[differing]} | {e2e[missed]} | {e2e_refused} |

{e2e_said}

## Twins, with traces put to use

`python -m tests.twins --traces --briefly`: pairs of programs that differ in one thing, A before B on one daemon, with
`TORCH_COMPILE_CLIENT_SKIP_TRACE=1`. What B prints (values, gradients, exceptions, random streams) must be the same text
as plainly, also where a trace of A's is there, and where it takes its own.

| pairs | things, of all | differ | hits lost | pairs with a trace skipped | functions skipped | none fitted | refused |
|---:|---:|---:|---:|---:|---:|---:|---|
| {pairs} | {things} of {every} | {differ} | {lost} | {skipping} | {twins[skipped]} | {twins[missed]} | {reasons} |

{twins_said}
"""


def main(e2e_rows: str, twins_rows: str) -> int:
    """Sum the rows up; return the exit code."""
    trainers = [json.loads(line) for line in Path(e2e_rows).read_text().splitlines()]
    pairs = {row["result"]["name"]: row["result"] for row in map(json.loads, Path(twins_rows).read_text().splitlines())}
    e2e, e2e_refused = Counter[str](), Counter[str]()
    for row in trainers:
        e2e.update({name: count for name, count in row.items() if isinstance(count, int)})
        e2e_refused.update(row.get("refused", {}))
    twins = Counter[str]()
    for pair in pairs.values():
        twins.update(pair["traces"])
    twins_refused = {name.removeprefix("refused: "): n for name, n in twins.items() if name.startswith("refused: ")}
    wrong = [pair for pair in pairs.values() if pair["differences"]]
    differing = [f"- `{row['test']}`: {said}" for row in trainers if row.get("differing") for said in row["said"]]
    page = _PAGE.format(
        when=datetime.now(UTC).date(),
        torch=version("torch"),
        tests=len({row["test"] for row in trainers}),
        trainers=len(trainers),
        e2e=e2e,
        e2e_refused=_listed(e2e_refused),
        e2e_said="\n".join(differing) or "Nothing differed.",
        pairs=len(pairs),
        things=len({pair["thing"] for pair in pairs.values()}),
        every=len({pair.thing.name for pair in all_pairs()}),
        differ=len(wrong),
        lost=sum(bool(pair["lost"]) for pair in pairs.values()),
        skipping=sum(bool(pair["traces"].get("skipped")) for pair in pairs.values()),
        twins=twins,
        reasons=_listed(twins_refused),
        twins_said="\n".join(_said(pair) for pair in wrong) or "Nothing differed.",
    )
    Path("docs/trust/traces.md").write_text(page)
    sys.stdout.write(page)
    return 1 if e2e["differing"] or wrong or not e2e["verified"] or not twins["skipped"] else 0


def _listed(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items())) or "none"


def _said(pair: dict[str, Any]) -> str:
    return f"- {pair['name']}: {pair['differences'][0]}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
