"""`python -m tests.fleet_suite`: a small fleet with real engines, played; see docs/trust/fleet.md.

    python -m tests.fleet_suite --write                    all scenarios (`make fleet`)
    python -m tests.fleet_suite --only cold,ranks          some of them
    python -m tests.fleet_suite --only faults --row s3     of a scenario, the rows with this in their names
    python -m tests.fleet_suite --weakened leases --write  whether the scenario notices that a part is missing

The last line of standard output is {"rows": n, "passed": n}; exit code 1 where a row failed (with `--weakened`: where
none did). With `--write` the rows go to docs/trust/fleet.md and fleet.json; those that were not played stay.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from benches.harness.output import say
from benches.harness.processes import run_bench
from tests.fleet_suite.document import write
from tests.fleet_suite.row import BROKE_OFF, Row
from tests.fleet_suite.scenarios import SCENARIOS
from tests.fleet_suite.stage import Stage
from tests.fleet_suite.weaknesses import WEAKNESSES, weakened_copy

_COMMAND = "python -m tests.fleet_suite --write"


def main(arguments: list[str] | None = None) -> int:
    """Play what the command line names; return the exit code."""
    options = _options(arguments)
    # In /tmp, whatever TMPDIR says: a Unix socket's path has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    try:
        if options.weakened:
            return _weakened(options, folder)
        stage = Stage(folder, {}, options.probes, options.row)
        rows = _played(options.only, stage, write_each=options.write)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    failed = [row for row in rows if row.passed is False]
    print(json.dumps({"rows": len(rows), "passed": sum(row.passed is True for row in rows)}))
    return 1 if failed else 0


def _weakened(options: argparse.Namespace, folder: Path) -> int:
    weakness = WEAKNESSES[options.weakened]
    variables = weakened_copy(options.weakened, folder)
    os.environ |= variables
    stage = Stage(folder, variables, options.probes, options.row)
    rows = _played([weakness.scenario], stage)
    failed = [f"{row.name}: {row.found}" for row in rows if row.passed is False]
    if options.write and failed:
        said = {"scenario": weakness.scenario, "part": options.weakened, "what": weakness.what}
        write([], [{**said, "failed": failed[0].replace("WRONG: ", "")}], command=_COMMAND, scenarios=_sentences())
    print(json.dumps({"rows": len(rows), "failed": len(failed)}))
    return 0 if failed else 1


def _played(names: list[str], stage: Stage, *, write_each: bool = False) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        say(f"{name}: {SCENARIOS[name].sentence}")
        for row in _rows(name, stage):
            rows.append(row)
            if write_each:  # what was played stays, also where the rest is stopped
                write([row], [], command=_COMMAND, scenarios=_sentences())
            verdict = {True: "passed", False: "FAILED", None: "not played"}[row.passed]
            say(f"  {row.name}: {verdict} ({row.seconds:.0f} s): {row.found}")
    return rows


def _rows(name: str, stage: Stage) -> Iterator[Row]:
    """Yield a scenario's rows, each with how long it took; what it raises is one that failed."""
    playing = SCENARIOS[name].play(stage)
    while True:
        began = time.monotonic()
        try:
            row = next(playing)
        except StopIteration:
            return
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - the other scenarios are played all the same
            say(traceback.format_exc())
            text = f"WRONG: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            row = Row(name=BROKE_OFF, promise="it is played to its end", found=text[:500], passed=False)
            playing = iter(())
        row.scenario, row.seconds = name, row.seconds or round(time.monotonic() - began, 1)
        yield row


def _sentences() -> dict[str, str]:
    return {name: scenario.sentence for name, scenario in SCENARIOS.items()}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fleet_suite", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=_names, default=list(SCENARIOS), help=f"by commas, of {', '.join(SCENARIOS)}")
    parser.add_argument("--row", default="", help="only rows with all of these words in their names, by commas")
    parser.add_argument("--write", action="store_true", help="write docs/trust/fleet.md and fleet.json")
    parser.add_argument("--weakened", choices=WEAKNESSES, help="without this part: its scenario must fail")
    parser.add_argument(
        "--probes", type=Path, help="keep torch's probes here, or use what was kept: while working on it"
    )
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SCENARIOS]:
        raise argparse.ArgumentTypeError(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    return names


if __name__ == "__main__":
    run_bench(main)
