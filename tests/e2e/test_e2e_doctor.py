"""`doctor` does what a trainer does: what refuses a trainer is said, whatever else is in order."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.conftest import Daemon, Lab, clean_environment

pytestmark = pytest.mark.slow


def doctor(daemon: Daemon, **environ: str) -> tuple[int, dict[str, str]]:
    done = subprocess.run(
        [sys.executable, "-m", "compiler_daemon", "doctor", "--json", "--dir", str(daemon.directory)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=clean_environment(TMPDIR=str(daemon.temporary), **environ),
    )
    findings: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    return done.returncode, {one["check"]: f"{one['level']}: {one['text']}" for one in findings}


def test_a_trainer_that_gets_its_graph_is_ok_and_one_that_is_refused_is_a_problem(lab: Lab) -> None:
    daemon = lab.daemon()

    code, well = doctor(daemon)
    (daemon.directory / "secret").write_bytes(secrets.token_bytes(32))
    broken, replaced = doctor(daemon)

    assert (code, well["trainer"].split(";")[0]) == (0, "ok: a tiny graph was compiled by the daemon")
    assert broken == 1
    assert replaced["trainer"].startswith("problem: torch compiled a tiny graph itself: ")
    assert "sign" in replaced["trainer"]
