"""What came of the end-to-end tests with every hit verified: `make verified` calls it after them.

Reads the rows that the trainers left, and writes docs/trust/verified.md. Exit code 1 where anything differed from what
torch itself made, or where nothing was verified.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_PAGE = """# Every hit of the end-to-end tests, compiled once more

`make verified` runs `tests/e2e` with `TORCH_COMPILE_CLIENT_VERIFY=1`: each trainer compiles what it is served here as
well, and the generated code is compared. {when}, torch {torch}.

| trainers | hits | compiled by the daemon | verified | mismatches | unsettled |
|---|---|---|---|---|---|
| {trainers} | {hits} | {compiled_by_daemon} | {verified} | {mismatches} | {unsettled} |

Unsettled: torch chooses by measuring, and has chosen another candidate here than in the worker.

{differing}
"""


def main(rows_file: str) -> int:
    """Sum the rows up; return the exit code."""
    rows = [json.loads(line) for line in Path(rows_file).read_text().splitlines()]
    sums: Counter[str] = Counter()
    for row in rows:
        sums.update({name: count for name, count in row.items() if isinstance(count, int)})
    differing = sorted({f"- `{row['test']}`: {said}" for row in rows if row["mismatches"] for said in row["said"]})
    page = _PAGE.format(
        when=datetime.now(UTC).date(),
        torch=version("torch"),
        trainers=len(rows),
        differing="\n".join(differing) or "Nothing differed.",
        **{name: sums[name] for name in ("hits", "compiled_by_daemon", "verified", "mismatches", "unsettled")},
    )
    Path("docs/trust/verified.md").write_text(page)
    sys.stdout.write(page)
    return 1 if sums["mismatches"] or not sums["verified"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
