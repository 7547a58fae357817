"""A trainer that starts its daemon itself, with real graphs: `TORCH_COMPILE_CLIENT=auto`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import clean_environment

pytestmark = pytest.mark.slow

PROGRAM = "import torch\nassert torch.compile(lambda x: x * 3 + 1)(torch.arange(8.0)).sum() == 92\n"


def counters_of_a_trainer(folder: Path, name: str) -> dict[str, Any]:
    report = folder / f"{name}.json"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=clean_environment(
            COMPILER_DAEMON_DIR=str(folder / "d"),
            TORCH_COMPILE_CLIENT="auto",
            TORCH_COMPILE_CLIENT_REPORT=str(report),
            TORCHINDUCTOR_CACHE_DIR=str(folder / name),
        ),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counters: dict[str, Any] = json.loads(report.read_text())
    return counters


def test_the_first_trainer_starts_a_daemon_that_compiles_and_the_second_compiles_nothing(tmp_path: Path) -> None:
    try:
        first = counters_of_a_trainer(tmp_path, "first")
        second = counters_of_a_trainer(tmp_path, "second")
    finally:
        command = [sys.executable, "-m", "compiler_daemon", "stop", "--now", "--dir", str(tmp_path / "d")]
        subprocess.run(command, env=clean_environment(), check=True, timeout=120)

    assert (first["compiled_by_daemon"], first["fallbacks"]) == (1, {})
    assert (second["hits"], second["cpp_builds"]) == (1, 0)
