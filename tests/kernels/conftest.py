"""Real daemons, and processes that need Triton kernels, each with caches of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benches.harness.daemon import ServedDaemon, clean_environment

TRAINERS = Path(__file__).parent / "trainers"
REPOSITORY = Path(__file__).parents[2]
DEADLINE_S = 200.0

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: pip install triton"
)


@dataclass
class Outcome:
    code: int
    result: dict[str, Any]
    report: dict[str, Any]
    err: str


class Running:
    def __init__(self, process: subprocess.Popen[str], report: Path) -> None:
        self.process = process
        self._report = report

    def wait(self) -> Outcome:
        try:
            out, err = self.process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, err = self.process.communicate()
            pytest.fail(f"the process hung:\n{err}")
        lines = out.splitlines()
        result = json.loads(lines[-1]) if lines else {}
        report = json.loads(self._report.read_text()) if self._report.exists() else {}
        return Outcome(self.process.returncode, result, report, err)


class Bench:
    """Starts daemons and trainers under one folder, and ends those that are left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._daemons: list[ServedDaemon] = []
        self._running: list[Running] = []

    def daemon(self, *arguments: str) -> ServedDaemon:
        daemon = ServedDaemon(self.folder / f"d{len(self._daemons)}", *arguments)
        daemon.start()
        self._daemons.append(daemon)
        return daemon

    def start(
        self,
        *arguments: str,
        daemon: ServedDaemon | None = None,
        script: str = "small.py",
        triton_dir: Path | None = None,
        **more: str,
    ) -> Running:
        home = self.folder / f"t{len(self._running)}"
        home.mkdir()
        report = home / "report.json"
        environment = clean_environment() | {
            "PYTHONPATH": os.pathsep.join(
                [str(REPOSITORY), str(REPOSITORY / "proto"), os.environ.get("PYTHONPATH", "")]
            ),
            "TRITON_CACHE_DIR": str(triton_dir or home / "triton"),
            "TMPDIR": str(home),
        }
        if daemon is not None:
            environment |= {
                "TORCH_COMPILE_CLIENT": "1",
                "TORCH_COMPILE_CLIENT_REPORT": str(report),
                "COMPILER_DAEMON_DIR": str(daemon.directory),
            }
        process = subprocess.Popen(
            [sys.executable, str(TRAINERS / script), *arguments],
            env=environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running = Running(process, report)
        self._running.append(running)
        return running

    def run(self, *arguments: str, **options: Any) -> Outcome:
        outcome = self.start(*arguments, **options).wait()
        assert outcome.code == 0, outcome.err
        return outcome

    def close(self) -> None:
        for running in self._running:
            if running.process.poll() is None:
                running.process.kill()
                running.process.communicate()
        for daemon in self._daemons:
            if not daemon.has_ended():
                os.kill(daemon.pid, 18)
            daemon.stop()


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedDaemon]:
    """One daemon for all tests that do it no harm; it may have kernels already that another test asked for."""
    made = Bench(tmp_path_factory.mktemp("kernels"))
    try:
        yield made.daemon()
    finally:
        made.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    try:
        yield made
    finally:
        made.close()
