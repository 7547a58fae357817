"""Scenarios that are tests already: played by pytest, one row a test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from xml.etree import ElementTree

from tests.e2e.conftest import REPOSITORY
from tests.fleet_suite.row import Row, Workers, unplayed
from tests.fleet_suite.stage import Stage

_LIMIT_S = 1500.0


def slurm(stage: Stage) -> Iterator[Row]:
    """Yield a row for each test of the Slurm guide; SLURM_FOLDER says where Slurm is."""
    return played(stage, "tests/recipes/test_recipes_slurm.py", workers="pretending")


def second_s3(stage: Stage) -> Iterator[Row]:
    """Yield a row for each test against moto; MOTO_SERVER says where it is."""
    return played(stage, "tests/daemon/tier/test_tier_moto.py", workers="none")


def played(stage: Stage, tests: str, *, workers: Workers) -> Iterator[Row]:
    """Run the tests of a file and yield a row for each; a weakened product is played until one fails."""
    folder = stage.new_folder()
    report = folder / "report.xml"
    options = ["-n", "0", "-p", "no:randomly", "-q", "-o", "junit_logging=system-out", f"--junit-xml={report}"]
    # What PYTHONPATH names is imported before the checkout: where the product is weakened, that is another one.
    options += ["--import-mode=append", *(["-x"] if stage.variables else [])]
    command = [sys.executable, "-m", "pytest", *options, tests]
    with (folder / "pytest.log").open("wb") as log:
        subprocess.run(command, cwd=REPOSITORY, stdout=log, stderr=log, timeout=_LIMIT_S, check=False)
    if not report.exists():
        text = (folder / "pytest.log").read_text(errors="replace")[-300:]
        yield Row(name="tests", promise="they run", found=f"WRONG: {text}", passed=False, workers=workers)
        return
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = case.get("name", "").removeprefix("test_").replace("_", " ")
        promise = f"The names are the promises; the tests are `{tests}`"
        skipped, wrong = case.find("skipped"), _first(case, "failure", "error")
        if skipped is not None:
            yield unplayed(name, promise, skipped.get("message", ""))
            continue
        lines = case.findtext("system-out", "").strip().splitlines()
        said = [line for line in lines if not line.startswith("---")][-1:]  # without pytest's headline
        found = f"WRONG: {wrong.get('message', '')[:300]}" if wrong is not None else "; ".join(said) or "as promised"
        seconds = round(float(case.get("time", 0)), 1)
        yield Row(name=name, promise=promise, found=found, passed=wrong is None, workers=workers, seconds=seconds)


def _first(case: ElementTree.Element, *names: str) -> ElementTree.Element | None:
    return next((found for name in names if (found := case.find(name)) is not None), None)
