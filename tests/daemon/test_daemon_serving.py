"""`serve` through the command line, as people start it."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benches.harness.synthetic import ENVIRONMENT
from compile_client.testing import ClientConfig, DaemonClient
from tests.daemon.daemon_process import DEADLINE_S

IDLE_BYTES = 60 * 10**6


@contextmanager
def served(directory: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "compiler_daemon", "serve", "--dir", str(directory), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stdout.readline().startswith("ready ")
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.mark.parametrize("options", [["--no-page"], []], ids=["plain", "with a page"])
def test_an_idle_daemon_is_small_and_has_forgotten_the_command_line(tmp_path: Path, options: list[str]) -> None:
    with served(tmp_path / "d", *options) as process:
        memory = psutil.Process(process.pid).memory_info().rss
        maps = Path(f"/proc/{process.pid}/maps").read_text()

    assert memory < IDLE_BYTES
    assert "pydantic" not in maps


def test_the_daemon_is_the_process_that_was_started(tmp_path: Path) -> None:
    with served(tmp_path / "d") as process:
        assert json.loads((tmp_path / "d" / "daemon.json").read_text())["pid"] == process.pid
        assert "serve" in psutil.Process(process.pid).cmdline()


def test_the_daemon_keeps_freed_memory_and_its_children_do_as_the_system_does(tmp_path: Path) -> None:
    with served(tmp_path / "d") as process:
        daemon = psutil.Process(process.pid)
        config = ClientConfig(directory=tmp_path / "d", log_level=logging.CRITICAL)
        client = DaemonClient(config, lambda: ENVIRONMENT, program="test", env={})
        assert client.available()  # each handshake makes the daemon start a worker
        deadline = time.monotonic() + DEADLINE_S
        while not (children := daemon.children()) and time.monotonic() < deadline:
            time.sleep(0.01)
        client.close()
        own, theirs = daemon.environ(), [child.environ() for child in children]

    assert own["MALLOC_TRIM_THRESHOLD_"] == str(8 * 2**20)
    assert theirs
    assert not any(name.startswith("MALLOC_") for environment in theirs for name in environment)


def test_a_thread_that_computes_soon_gives_the_interpreter_up_to_answers(tmp_path: Path) -> None:
    # This process cannot serve because of a file in the way, and prints the setting that it would have served with.
    (tmp_path / "d").write_text("in the way")
    program = f"""
import sys
from pathlib import Path
from compiler_daemon.config import DaemonConfig, DaemonLocation
from compiler_daemon.serve import serve_config
location = DaemonLocation.resolve({{}}, directory=Path({str(tmp_path / "d")!r}), address=None)
try:
    serve_config(DaemonConfig(directory=location.directory, address=location.default_address))
except SystemExit:
    print(sys.getswitchinterval())
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert 0 < float(said.stdout) <= 0.001


def test_settings_arrive_whole(tmp_path: Path) -> None:
    with served(tmp_path / "d", "--no-page", "--store-gib", "3", "--address", f"unix:{tmp_path}/other.sock") as process:
        command = [sys.executable, "-m", "compiler_daemon", "status", "--json", "--dir", str(tmp_path / "d")]
        state = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        assert (state["pid"], state["store_max_bytes"]) == (process.pid, 3 * 2**30)
        assert state["page"] == ""
        assert state["address"] == f"unix:{tmp_path}/other.sock"


def test_status_says_where_the_page_is(tmp_path: Path) -> None:
    with served(tmp_path / "d"):
        command = [sys.executable, "-m", "compiler_daemon", "status", "--dir", str(tmp_path / "d")]
        plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        state = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)

    assert state["page"].startswith("http://127.0.0.1:")
    assert state["page"] in plain


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--address", "10.0.0.1:99"], 2, "needs TLS"),
        (["--page-port", "70000"], 2, "page-port"),
        (["--address", "unix:/nowhere/at/all.sock"], 1, "does not exist"),
    ],
    ids=["never possible", "no port", "no place"],
)
def test_what_cannot_be_is_one_sentence_and_an_exit_code(
    tmp_path: Path, options: list[str], code: int, words: str
) -> None:
    command = [sys.executable, "-m", "compiler_daemon", "serve", "--dir", str(tmp_path / "d"), *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert ended.returncode == code
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
