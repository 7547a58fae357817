"""`doctor` does what a trainer does: what refuses a trainer is said, whatever else is in order."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compile_wire.limits import PROTOCOL_VERSION
from tests.e2e.conftest import REPOSITORY, Daemon, Lab, clean_environment

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
    said: dict[str, str] = {}
    for one in findings:
        said[one["check"]] = said.get(one["check"], "") + f"{one['level']}: {one['text']}\n"
    return done.returncode, said


def test_a_trainer_that_gets_its_graph_is_ok_and_one_that_is_refused_is_a_problem(lab: Lab) -> None:
    daemon = lab.daemon()

    code, well = doctor(daemon)
    (daemon.directory / "secret").write_bytes(secrets.token_bytes(32))
    broken, replaced = doctor(daemon)

    assert (code, well["trainer"].split(";")[0]) == (0, "ok: a tiny graph was compiled by the daemon")
    assert broken == 1
    assert replaced["trainer"].startswith("problem: torch compiled a tiny graph itself: ")
    assert "sign" in replaced["trainer"]


def another_release(folder: Path) -> Path:
    """A copy of the daemon's packages which speaks the next protocol; for `PYTHONPATH`."""
    for package in ("compiler_daemon", "compile_client", "proto/compile_wire", "proto/compile_torch"):
        name = Path(package).name
        shutil.copytree(REPOSITORY / package, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    limits = folder / "compile_wire" / "limits.py"
    before = limits.read_text()
    limits.write_text(
        before.replace(f"PROTOCOL_VERSION = {PROTOCOL_VERSION}\n", f"PROTOCOL_VERSION = {PROTOCOL_VERSION + 1}\n")
    )
    assert limits.read_text() != before
    return folder


def test_a_daemon_of_another_protocol_is_a_problem_although_it_answers_in_time(lab: Lab, tmp_path: Path) -> None:
    daemon = lab.daemon("other")
    daemon.stop()
    daemon.environment["PYTHONPATH"] = os.fspath(another_release(tmp_path / "release"))
    daemon.start()

    code, found = doctor(daemon)

    assert code == 1
    assert found["answers"].startswith("ok: ")
    assert found["trainer"].startswith("problem: torch compiled a tiny graph itself: ")
    assert f"speaks protocol {PROTOCOL_VERSION} and the daemon {PROTOCOL_VERSION + 1}" in found["trainer"]


def test_what_a_variable_does_to_a_trainer_is_a_problem_of_the_doctors_own_trainer(lab: Lab) -> None:
    daemon = lab.daemon()

    code, found = doctor(daemon, TORCHINDUCTOR_FORCE_DISABLE_CACHES="1")

    assert code == 1
    assert "problem: TORCHINDUCTOR_FORCE_DISABLE_CACHES=1 switches the client off" in found["environment"]
    assert found["trainer"].startswith("problem: ")
